"""A temperature is the one that was planted, is taken only where it gains, and leaves every answer as it is."""

import numpy as np
import pytest

from reglaj.evaluation.metrics.calibration import (
    FOLDS,
    HOTTEST,
    best_temperature,
    calibration_differences,
    choose_temperature,
    folds_of,
    softmax,
)

SETTINGS = {"confidence": 0.95, "samples": 400, "seed": 3}


def drawn(num_rows: int, temperature: float = 1.0, *, num_classes: int = 6, seed: int = 0):
    """Scores (N, C) that are calibrated after division by `temperature`, and the truth."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(num_rows, num_classes)) * 2
    chances = softmax(scores).cumsum(axis=1)
    truth = (chances > generator.random((num_rows, 1))).argmax(axis=1)
    return (scores * temperature).astype(np.float32), truth


def test_two_rows_have_the_temperature_of_the_closed_form():
    # Two classes with a lead of d for the right one in three rows and against it in one: the likeliest T gives that
    # lead the probability 3/4, so d / T = log 3.
    scores = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    truth = np.array([0, 0, 0, 1])
    assert best_temperature(scores, truth) == pytest.approx(2 / np.log(3), rel=1e-9)


@pytest.mark.parametrize("planted", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_found(planted):
    scores, truth = drawn(20_000, planted)
    assert best_temperature(scores, truth) == pytest.approx(planted, rel=0.03)


def test_the_derivative_is_zero_where_the_loss_is_lowest():
    scores, truth = drawn(500, 1.7, seed=5)
    best = best_temperature(scores, truth)
    losses = [-np.log(softmax(scores, t)[np.arange(500), truth]).mean() for t in (best * 0.99, best, best * 1.01)]
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_where_likelihood_knows_no_end_the_temperature_does():
    scores = np.array([[3.0, 0.0], [0.0, 3.0]])
    assert best_temperature(scores, np.array([0, 1])) == 1 / HOTTEST
    assert best_temperature(scores, np.array([1, 0])) == HOTTEST


def test_an_oversure_model_is_divided_and_a_calibrated_one_left_alone():
    sure = choose_temperature(*drawn(800, 2.0), **SETTINGS)
    assert sure["applied"] and sure["temperature"] == sure["fitted"] == pytest.approx(2.0, rel=0.1)
    assert sure["log_loss"]["difference"]["high"] < 0 < sure["log_loss"]["before"] - sure["log_loss"]["after"]
    fine = choose_temperature(*drawn(800, 1.0, seed=1), **SETTINGS)
    assert not fine["applied"] and fine["temperature"] == 1.0 and fine["fitted"] != 1.0


def test_a_calibrated_model_is_hardly_ever_touched():
    touched = sum(choose_temperature(*drawn(200, seed=seed), **SETTINGS)["applied"] for seed in range(40))
    assert touched <= 1


@pytest.mark.parametrize("rows", [1, 2, 7, 29])
def test_few_rows_decide_nothing(rows):
    scores, truth = drawn(rows, 3.0, seed=4)
    found = choose_temperature(scores, truth, **SETTINGS)
    assert found["temperature"] == 1.0 and np.isfinite(list(found["log_loss"]["difference"].values())).all()


def test_a_temperature_keeps_the_order_of_the_classes():
    scores, _ = drawn(300, 3.0)
    assert (softmax(scores, 2.7).argmax(axis=1) == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(softmax(scores, 2.7).sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]]), 0.05), [[1.0, 0.0]])


def test_calibration_lowers_both_errors_on_other_rows():
    scores, truth = drawn(3000, 2.5, seed=8)
    fitted = best_temperature(*drawn(1000, 2.5, seed=9))
    found = calibration_differences(truth, softmax(scores), softmax(scores, fitted), **SETTINGS)
    for name in ("log_loss", "expected_calibration_error"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"] < 0
        assert found[name]["p"] < 0.01
    same = calibration_differences(truth, softmax(scores), softmax(scores), **SETTINGS)
    assert all(values["value"] == values["low"] == values["high"] == 0 for values in same.values())


def test_folds_share_out_each_class():
    truth = np.repeat([0, 1, 2], [50, 20, 4])
    folds = folds_of(truth, 1)
    for label, rows in ((0, 10), (1, 4)):
        assert np.bincount(folds[truth == label], minlength=FOLDS).tolist() == [rows] * FOLDS
    assert (folds_of(truth, 1) == folds).all() and (folds_of(truth, 2) != folds).any()
