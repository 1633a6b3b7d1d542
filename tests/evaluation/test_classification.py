import json
import time

import numpy as np
import pytest
from sklearn import metrics as theirs
from tests.evaluation.sample_reports import labels_of, simulate

from reglaj.evaluation.metrics.classification import (
    CALIBRATION_BINS,
    SMALLEST_PROBABILITY,
    calibration_curve,
    classification_differences,
    classification_scores,
    point_metrics,
)

SETTINGS = {"samples": 200, "seed": 3}


@pytest.fixture(scope="module", params=[(2, 120), (20, 700), (77, 1500)], ids=["2", "20", "77"])
def case(request):
    num_classes, num_rows = request.param
    truth, probabilities = simulate(num_classes, num_rows, skill=2.0)
    labels = [f"l{i}" for i in range(num_classes)]
    return labels, truth, probabilities, classification_scores(labels, truth, probabilities, **SETTINGS)


def test_figures_equal_scikit_learn(case):
    _, truth, probabilities, scores = case
    predicted = probabilities.argmax(axis=1)
    assert scores["accuracy"]["value"] == pytest.approx(theirs.accuracy_score(truth, predicted))
    assert scores["macro_f1"]["value"] == pytest.approx(theirs.f1_score(truth, predicted, average="macro"), abs=1e-6)
    assert scores["log_loss"]["value"] == pytest.approx(theirs.log_loss(truth, probabilities), abs=1e-6)
    assert scores["confusion_matrix"] == theirs.confusion_matrix(truth, predicted).tolist()


def test_per_class_equals_scikit_learn(case):
    labels, truth, probabilities, scores = case
    found = theirs.precision_recall_fscore_support(truth, probabilities.argmax(axis=1), zero_division=0)
    for i, label in enumerate(labels):
        ours = scores["per_class"][label]
        values = [ours["precision"]["value"], ours["recall"]["value"], ours["f1"]["value"], ours["support"]]
        assert values == pytest.approx([column[i] for column in found])


def test_point_metrics_are_the_figures_without_intervals(case):
    _, truth, probabilities, scores = case
    for name, value in point_metrics(truth, probabilities).items():
        assert value == pytest.approx(scores[name]["value"])


def test_every_figure_lies_in_its_interval_and_is_json(case):
    *_, scores = case

    def walk(value):
        if isinstance(value, dict):
            if {"value", "low", "high"} <= set(value):
                assert value["low"] <= value["value"] <= value["high"]
            for inner in value.values():
                walk(inner)

    walk(scores)
    json.dumps(scores, allow_nan=False)


def test_calibration_error_is_that_of_guo_et_al(case):
    """Eq. 3 in a loop: bins ((m-1)/M, m/M]."""
    _, truth, probabilities, scores = case
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    error = 0.0
    for m in range(CALIBRATION_BINS):
        inside = (sure > m / CALIBRATION_BINS) & (sure <= (m + 1) / CALIBRATION_BINS)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - sure[inside].mean())
    assert scores["expected_calibration_error"]["value"] == pytest.approx(error, abs=1e-6)
    curve = scores["calibration_curve"]
    assert sum(point["rows"] for point in curve) == len(truth)
    assert sum(p["rows"] * abs(p["accuracy"] - p["confidence"]) for p in curve) / len(truth) == pytest.approx(error)


def test_certainty_falls_into_the_last_bin():
    curve = calibration_curve(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]]), 0.95)
    assert [(point["rows"], point["high"]) for point in curve] == [(2, 1.0)]


def test_a_certain_mistake_costs_a_finite_log_loss():
    assert point_metrics(np.array([0]), np.array([[0.0, 1.0]]))["log_loss"] == pytest.approx(
        -np.log(SMALLEST_PROBABILITY)
    )


def test_a_class_that_occurs_nowhere_does_not_count_in_macro_f1():
    truth, probabilities = np.array([0, 1, 0]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1]])
    scores = classification_scores(["a", "b", "c"], truth, probabilities, **SETTINGS)
    assert scores["macro_f1"]["value"] == 1.0
    assert scores["per_class"]["c"]["support"] == 0


def test_a_class_of_three_right_rows_does_not_claim_certainty():
    truth = np.array([0] * 50 + [1] * 3)
    scores = classification_scores(["a", "b"], truth, np.eye(2)[truth], **SETTINGS)
    assert scores["per_class"]["b"]["f1"]["value"] == 1.0
    assert scores["per_class"]["b"]["f1"]["low"] < 0.65


def test_differences_are_model_minus_baseline_and_paired():
    labels = labels_of(20)
    truth, better = simulate(20, 600, skill=3.4)
    _, worse = simulate(20, 600, skill=3.0)
    found = classification_differences(labels, truth, better, worse, **SETTINGS)
    ours, base = point_metrics(truth, better), point_metrics(truth, worse)
    for name, difference in found.items():
        assert difference["value"] == pytest.approx(ours[name] - base[name], abs=1e-6)
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert 0 < difference["p"] <= 1
    assert found["accuracy"]["value"] > 0 > found["log_loss"]["value"]
    swapped = classification_differences(labels, truth, worse, better, **SETTINGS)
    assert swapped["accuracy"]["value"] == pytest.approx(-found["accuracy"]["value"])
    # The two models err on the same hard rows: pairing must be far narrower than the two intervals added.
    alone = classification_scores(labels, truth, better, **SETTINGS)["accuracy"]
    assert found["accuracy"]["high"] - found["accuracy"]["low"] < 0.8 * (alone["high"] - alone["low"])


def test_a_model_does_not_differ_from_itself():
    truth, probabilities = simulate(5, 100, skill=1.0)
    for difference in classification_differences(
        labels_of(5), truth, probabilities, probabilities, **SETTINGS
    ).values():
        assert (difference["value"], difference["low"], difference["high"], difference["p"]) == (0.0, 0.0, 0.0, 1.0)


def test_intervals_cover_the_truth():
    """Macro-F1, log loss and calibration error of a known world, 150 test sets of 600 rows."""
    settings = {"confidence": 0.9, "samples": 200}
    names = ("accuracy", "macro_f1", "log_loss", "expected_calibration_error")
    labels = labels_of(6)
    truth, probabilities = simulate(6, 300_000, skill=2.0, sureness=1.6)
    whole = classification_scores(labels, truth, probabilities, samples=2)
    hits = dict.fromkeys(names, 0)
    for i in range(150):
        rows = slice(i * 600, (i + 1) * 600)
        scores = classification_scores(labels, truth[rows], probabilities[rows], seed=i, **settings)
        for name in names:
            hits[name] += scores[name]["low"] <= whole[name]["value"] <= scores[name]["high"]
    assert all(0.82 <= count / 150 <= 0.97 for count in hits.values()), hits


@pytest.mark.parametrize(
    ("truth", "probabilities", "told"),
    [
        ([0, 1], [[0.5, 0.5]], "must be"),
        ([0], [[float("nan"), 1.0]], "row 0 is not finite"),
        ([2], [[0.5, 0.5]], "class numbers"),
        ([], np.zeros((0, 2)), "no rows"),
    ],
)
def test_what_cannot_be_right_is_refused(truth, probabilities, told):
    with pytest.raises(ValueError, match=told):
        classification_scores(["a", "b"], np.array(truth, dtype=int), np.array(probabilities))
    with pytest.raises(ValueError, match="labels"):
        classification_scores(["a"], np.array([0]), np.array([[0.5, 0.5]]))


@pytest.mark.alone
def test_speed_of_a_thousand_samples_of_banking77():
    truth, probabilities = simulate(77, 3080, skill=3.0)
    started = time.perf_counter()
    classification_scores(labels_of(77), truth, probabilities, samples=1000)
    classification_differences(labels_of(77), truth, probabilities, probabilities[:, ::-1], samples=1000)
    assert time.perf_counter() - started < 3
