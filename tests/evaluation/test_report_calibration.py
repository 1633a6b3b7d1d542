"""What the page says of calibration, abstention and uneven classes."""

import json

import numpy as np
import pytest
from tests.evaluation.sample_reports import labels_of, sample_report, simulate

from reglaj.evaluation.config import EvaluateConfig
from reglaj.evaluation.metrics.classification import classification_differences, classification_scores
from reglaj.evaluation.report import write_report
from reglaj.evaluation.report.classification import CLASSIFICATION, headline, verdict
from reglaj.evaluation.report.imbalance import imbalance_told
from reglaj.evaluation.report.plan import Document
from reglaj.tasks.classify_calibration import settle
from reglaj.tasks.classify_confidence import confidence_figures

SETTINGS = {"samples": 100, "seed": 1}
SHARES = 1 / (np.arange(20) + 1.5)
SHARES = SHARES / SHARES.sum()


def figures(sureness: float, thresholds: str = "macro_f1"):
    """`calibration`, `thresholds` and `abstention` of a simulated model."""
    parts = []
    for seed in (5, 0):
        truth, probabilities = simulate(20, 965, skill=3.55, seed=seed, sureness=sureness, shares=SHARES)
        parts.append((np.log(probabilities + 1e-30).astype(np.float32), truth))
    config = EvaluateConfig(thresholds=thresholds, bootstrap_samples=200)
    calibration = settle(labels_of(20), *parts[0], config, 1)
    return confidence_figures(labels_of(20), parts[1][1], parts[1][0], calibration, confidence=0.95, **SETTINGS)


@pytest.fixture(scope="module")
def sample():
    return sample_report(samples=100)


def page(sample, found, folder):
    report, extras = sample
    report = report | {"test": json.loads(json.dumps(report["test"] | found))}
    write_report(folder, report, extras, CLASSIFICATION)
    return (folder / "report.html").read_text()


def test_an_oversure_model_is_shown_before_and_after(sample, tmp_path):
    found = figures(2.0)
    assert found["calibration"]["applied"] and found["calibration"]["temperature"] == pytest.approx(2, rel=0.15)
    for name in ("log_loss", "expected_calibration_error"):
        values = found["calibration"]["test"][name]
        assert values["difference"]["high"] < 0
        assert values["after"]["value"] - values["before"]["value"] == pytest.approx(
            values["difference"]["value"], abs=1e-6
        )
    told = page(sample, found, tmp_path)
    assert "scores are divided by" in told and "as it is served" in told
    assert "What if it answers only where it is sure?" in told and "Answers chosen for macro-F1" in told
    # 54% right: none of the usual targets can be had, so the lowest that can is shown, and held against the test rows.
    *_, lowest = found["abstention"]["targets"]
    assert lowest["target_error"] not in (0.01, 0.02, 0.05, 0.1) and lowest["error"]["low"] <= lowest["target_error"]


def test_a_calibrated_model_is_called_so(sample, tmp_path):
    found = figures(1.0, "none")
    assert not found["calibration"]["applied"] and found["thresholds"] is None
    told = page(sample, found, tmp_path)
    assert "already calibrated" in told and "as it is served" not in told and "chosen for macro-F1" not in told


def test_a_report_of_an_older_run_has_its_diagram_alone(sample, tmp_path):
    told = page(sample, {}, tmp_path)
    assert "Do its probabilities mean what they say?" in told and "only where it is sure" not in told


def uneven(right_of_rare: int):
    """A report of 90 rows of one class and 10 of another, of which some are right."""
    truth = np.repeat([0, 1], [90, 10])
    said = truth.copy()
    said[90 + right_of_rare :] = 0
    ours, majority = np.eye(2)[said] * 0.8 + 0.1, np.tile([0.9, 0.1], (100, 1))
    labels = ["often", "rare"]
    scores = classification_scores(labels, truth, majority, **SETTINGS)
    differences = classification_differences(labels, truth, ours, majority, **SETTINGS)
    baselines = {"majority": {name: {**scores[name], "difference": d} for name, d in differences.items()}}
    test = classification_scores(labels, truth, ours, **SETTINGS)
    return Document(report={"test": test, "baselines": baselines}, extras={}, plan=CLASSIFICATION)


def test_accuracy_is_called_a_poor_headline_where_one_class_is_nearly_all():
    document = uneven(0)
    told = headline(document)
    assert "Accuracy is a poor headline here: 90% of the test rows are 'often'" in told
    assert "Macro-F1, which counts every class alike, is 47.4%" in told
    assert any("train.sampling: balanced" in limit for limit in CLASSIFICATION.limits(document))
    assert verdict(uneven(10)) == ("good", "Better than the baseline")


def test_even_classes_that_go_alike_are_left_alone():
    truth, probabilities = simulate(7, 700, skill=3, seed=1)
    assert imbalance_told(classification_scores(labels_of(7), truth, probabilities, **SETTINGS)) == ""
