"""Probabilities that mean what they say: one temperature, chosen by likelihood on validation.

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2: scores are divided by one number T > 0 before
the softmax. The order of the classes stays, so no answer changes, and neither does accuracy.

Departures from the paper:
1. T is the root of a derivative, bracketed and exact, where the paper descends a gradient: in 1/T the loss is convex.
2. It is taken only where it is shown to gain: rows are scored by the T of the other folds, and the interval of the
   paired difference in log loss must lie below zero. Otherwise, and with a handful of rows, T is 1.

N rows, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from reglaj.evaluation.intervals import (
    Difference,
    Statistic,
    bootstrap,
    mean_of,
    paired_difference,
    point,
    reflected_difference,
)
from reglaj.evaluation.metrics.classification import Answers, calibration_error, row_log_losses
from reglaj.evaluation.types import FloatArray, IntArray

HOTTEST = 20.0
"""T lies between 1 / HOTTEST and this: where every validation row is right, likelihood knows no end."""
FOLDS = 5
FEWEST_ROWS = 30
"""Rows below which nothing is applied: a bootstrap of a handful of rows is sure of anything."""


def softmax(scores: FloatArray, temperature: float = 1.0) -> FloatArray:
    """Probabilities of each row: (N, C) scores to (N, C) float64."""
    scaled = scores.astype(np.float64) / temperature
    exponent = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(exponent / exponent.sum(axis=1, keepdims=True))


def best_temperature(scores: FloatArray, truth: IntArray) -> float:
    """The T with the highest likelihood of truth (N,) under scores (N, C), between 1 / HOTTEST and HOTTEST."""
    from scipy.optimize import brentq

    scores = scores.astype(np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    reached = scores[np.arange(len(truth)), truth].mean()

    def slope(log_beta: float) -> float:
        """Derivative of the log loss by beta = 1/T: the mean expected score less the mean score of the truth."""
        weights = np.exp(scores * np.exp(log_beta))
        return float(((weights * scores).sum(axis=1) / weights.sum(axis=1)).mean() - reached)

    low, high = -np.log(HOTTEST), np.log(HOTTEST)
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return 1 / HOTTEST
    return float(np.exp(-brentq(slope, low, high, xtol=1e-12)))


def folds_of(truth: IntArray, seed: int) -> IntArray:
    """(N,) fold of each row, 0 to FOLDS - 1: each class is shared out as evenly as its rows allow."""
    order = np.random.default_rng(seed).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    folds = np.empty(len(truth), dtype=np.int64)
    folds[order] = np.arange(len(truth)) % FOLDS
    return folds


def choose_temperature(
    scores: FloatArray, truth: IntArray, *, confidence: float, samples: int, seed: int
) -> dict[str, Any]:
    """The temperature to serve with, and why, as JSON values.

    `temperature`: what is served; 1.0 where nothing is `applied`. `fitted`: what all rows make likeliest. `log_loss`:
    `before` and `after` (each row by the temperature of the other folds) with their paired `difference`.
    """
    truth = np.asarray(truth, dtype=np.int64)
    fitted = best_temperature(scores, truth)
    folds = folds_of(truth, seed)
    after = np.empty(len(truth))
    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold
        if held.any():
            other = best_temperature(scores[others], truth[others]) if others.any() else 1.0
            after[held] = row_log_losses(truth[held], softmax(scores[held], other))
    before = row_log_losses(truth, softmax(scores))
    statistic = mean_of(after - before)
    draws = bootstrap(statistic, len(truth), samples=samples, seed=seed)[:, 0]
    found = paired_difference(float(point(statistic, len(truth))[0]), draws, confidence)
    is_applied = len(truth) >= FEWEST_ROWS and found["high"] < 0
    return {
        "temperature": fitted if is_applied else 1.0,
        "fitted": fitted,
        "applied": is_applied,
        "rows": len(truth),
        "log_loss": {
            "before": float(before.mean()),
            "after": float(after.mean()),
            "difference": found,
        },
    }


def calibration_differences(
    truth: IntArray, before: FloatArray, after: FloatArray, *, confidence: float, samples: int, seed: int
) -> dict[str, Difference]:
    """After minus before on the same rows, for `log_loss` and `expected_calibration_error`: `{value, low, high, p}`.

    before, after: (N, C) probabilities. Paired bootstrap. The interval of the calibration error is reflected, as that
    of the error itself: noise makes the error of the better calibrated side larger than that of the other.
    """
    statistics = {
        "log_loss": mean_of(row_log_losses(truth, after) - row_log_losses(truth, before)),
        "expected_calibration_error": _difference(
            calibration_error(truth, Answers.likeliest(after)), calibration_error(truth, Answers.likeliest(before))
        ),
    }
    found = {}
    for name, statistic in statistics.items():
        draws = bootstrap(statistic, len(truth), samples=samples, seed=seed)[:, 0]
        make = paired_difference if name == "log_loss" else reflected_difference
        found[name] = make(float(point(statistic, len(truth))[0]), draws, confidence)
    return found


def _difference(ours: Statistic, theirs: Statistic) -> Statistic:
    return lambda weights: ours(weights) - theirs(weights)
