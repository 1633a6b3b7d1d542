"""Offsets raise macro-F1 where classes are uneven, and leave alone what they cannot be shown to help."""

import numpy as np
import pytest

from reglaj.evaluation.metrics.calibration import softmax
from reglaj.evaluation.metrics.classification import classification_differences, point_metrics
from reglaj.evaluation.metrics.thresholds import answers_with, by_class, by_frequency, choose_thresholds

SETTINGS = {"confidence": 0.95, "samples": 300, "seed": 2}
LABELS = ["a", "b", "c", "d"]
UNEVEN, EVEN = (0.85, 0.09, 0.04, 0.02), (0.25, 0.25, 0.25, 0.25)


def drawn(num_rows, shares, seed=0, strength=1.2):
    """Truth, and the calibrated probabilities of a model that sees it through noise."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(4, num_rows, p=shares)
    evidence = generator.normal(size=(num_rows, 4))
    evidence[np.arange(num_rows), truth] += strength
    return truth, softmax(evidence * strength + np.log(shares))


def test_macro_f1_rises_on_other_rows_where_classes_are_uneven():
    told, held_out = choose_thresholds(LABELS, *drawn(1500, UNEVEN), **SETTINGS)
    assert told["applied"] and told["macro_f1"]["difference"]["low"] > 0
    assert told["macro_f1"]["after"] == point_metrics(drawn(1500, UNEVEN)[0], held_out)["macro_f1"]
    truth, probabilities = drawn(6000, UNEVEN, seed=9)
    offsets = np.array([told["offsets"][label] for label in LABELS])
    after = answers_with(probabilities, offsets)
    gain = classification_differences(LABELS, truth, after, probabilities, **SETTINGS)
    assert gain["macro_f1"]["low"] > 0 > gain["accuracy"]["value"] and gain["log_loss"]["value"] == 0
    assert offsets[0] < offsets[3]


@pytest.mark.parametrize("rows", [3, 40, 1500])
def test_nothing_is_taken_where_nothing_is_shown(rows):
    told, held_out = choose_thresholds(LABELS, *drawn(rows, EVEN, seed=1), **SETTINGS)
    assert not told["applied"] and told["offsets"] is None
    _, probabilities = drawn(rows, EVEN, seed=1)
    assert (held_out.classes == probabilities.argmax(axis=1)).all()


def test_few_rows_are_rarely_fooled():
    applied = [choose_thresholds(LABELS, *drawn(60, EVEN, seed=seed), **SETTINGS)[0]["applied"] for seed in range(20)]
    assert sum(applied) <= 2


def test_offsets_by_frequency_are_one_number_for_all():
    truth, probabilities = drawn(2000, UNEVEN, seed=3)
    offsets = by_frequency(truth, probabilities)
    counts = np.bincount(truth, minlength=4) + 0.5
    logs = -np.log(counts / counts.sum())
    assert offsets / logs == pytest.approx(np.full(4, (offsets / logs)[0]))


def test_offsets_by_class_are_no_worse_on_the_rows_they_are_fitted_on():
    truth, probabilities = drawn(800, UNEVEN, seed=4)
    scores = [
        point_metrics(truth, answers_with(probabilities, offsets))["macro_f1"]
        for offsets in (np.zeros(4), by_frequency(truth, probabilities), by_class(truth, probabilities))
    ]
    assert scores[0] <= scores[1] + 1e-9 <= scores[2] + 2e-9 and scores[0] < scores[2]
    assert (answers_with(probabilities, np.zeros(4)).classes == probabilities.argmax(axis=1)).all()
