"""Figures for a classifier, each with its interval, and paired differences between two classifiers.

Which interval:
- accuracy, precision, recall: proportions, so Wilson's;
- F1 of one class: 2J / (1 + J) of the proportion J = TP / (TP + FP + FN), so Wilson's for J, mapped (a bootstrap
  of a class with three rows, all right, would claim certainty);
- macro-F1, log loss, expected calibration error, and all differences: bootstrap over rows.

N rows, C classes, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reglaj.evaluation.intervals import (
    Difference,
    Interval,
    Statistic,
    bootstrap,
    mean_of,
    paired_difference,
    percentile_interval,
    point,
    proportion,
    reflected_interval,
    together,
    wilson,
)
from reglaj.evaluation.types import FloatArray, IntArray

SMALLEST_PROBABILITY = 1e-7
"""Probabilities are raised to this before the logarithm, so that a certain mistake costs 16.1 nats and not infinity
(which JSON has no word for). It is about the rounding of float32 near 1: a probability below it is noise."""

CALIBRATION_BINS = 15
"""Equal-width bins of confidence, as in Guo et al. 2017, section 2."""

HEADLINE = ("accuracy", "macro_f1", "log_loss")
"""The figures that two models are compared on."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a classifier says of some rows.

    probabilities: (N, C), rows summing to one. classes: (N,) what it answers, the likeliest class unless thresholds
    were chosen for another end (see `thresholds`).
    """

    probabilities: FloatArray
    classes: IntArray

    @classmethod
    def likeliest(cls, probabilities: FloatArray) -> Answers:
        """The answers where the likeliest class is said."""
        return cls(probabilities=probabilities, classes=probabilities.argmax(axis=1))

    @property
    def confidences(self) -> FloatArray:
        """(N,) the probability of what is answered."""
        return np.asarray(self.probabilities[np.arange(len(self.classes)), self.classes])


def point_metrics(truth: IntArray, said: FloatArray | Answers) -> dict[str, float]:
    """Accuracy, macro-F1 and log loss (nats a row) without intervals; for validation during training."""
    truth, answers = _checked(truth, said)
    values = point(_macro_f1(truth, answers), len(truth))
    return {
        "accuracy": float((answers.classes == truth).mean()),
        "macro_f1": float(values[0]),
        "log_loss": float(row_log_losses(truth, answers.probabilities).mean()),
    }


def classification_scores(
    labels: Sequence[str],
    truth: IntArray,
    said: FloatArray | Answers,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Every figure of a classifier on one set of rows, as JSON values.

    truth: (N,) class numbers. said: (N, C) probabilities, or `Answers`. Macro-F1 is the mean over the classes that
    occur in truth or prediction (scikit-learn's convention; in a test split every class occurs). Returns `accuracy,
    macro_f1, log_loss, expected_calibration_error` as `{value, low, high}`, `per_class`, `confusion_matrix` (rows are
    the truth, columns the prediction) and `calibration_curve` (bins without rows are left out).
    """
    truth, answers = _checked(truth, said, labels)
    predicted = answers.classes
    statistics = {
        "macro_f1": _macro_f1(truth, answers),
        "log_loss": mean_of(row_log_losses(truth, answers.probabilities)),
        "expected_calibration_error": calibration_error(truth, answers),
    }
    statistic = together(list(statistics.values()))
    values = point(statistic, len(truth))
    draws = bootstrap(statistic, len(truth), samples=samples, seed=seed)
    scores: dict[str, Any] = {"accuracy": proportion(int((predicted == truth).sum()), len(truth), confidence)}
    for column, name in enumerate(statistics):
        make = reflected_interval if name == "expected_calibration_error" else percentile_interval
        scores[name] = make(float(values[column]), draws[:, column], confidence)
    matrix = confusion_matrix(truth, predicted, len(labels))
    scores["per_class"] = per_class_scores(labels, matrix, confidence)
    scores["confusion_matrix"] = matrix.tolist()
    scores["calibration_curve"] = calibration_curve(truth, answers, confidence)
    return scores


def classification_differences(
    labels: Sequence[str],
    truth: IntArray,
    model: FloatArray | Answers,
    baseline: FloatArray | Answers,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Model minus baseline on the same rows, for `accuracy, macro_f1, log_loss`: `{value, low, high, p}`.

    Paired bootstrap: each sample draws rows once and scores both on them.
    """
    truth, our_answers = _checked(truth, model, labels)
    _, their_answers = _checked(truth, baseline, labels)
    ours, theirs = _headline_statistic(truth, our_answers), _headline_statistic(truth, their_answers)

    def difference(weights: FloatArray) -> FloatArray:
        return ours(weights) - theirs(weights)

    values = point(difference, len(truth))
    draws = bootstrap(difference, len(truth), samples=samples, seed=seed)
    return {
        name: paired_difference(float(values[column]), draws[:, column], confidence)
        for column, name in enumerate(HEADLINE)
    }


def row_log_losses(truth: IntArray, probabilities: FloatArray) -> FloatArray:
    """(N,) nats: minus the logarithm of the probability of the true class, which is at least `SMALLEST_PROBABILITY`."""
    chosen = probabilities[np.arange(len(truth)), truth]
    return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)))


def confusion_matrix(truth: IntArray, predicted: IntArray, num_classes: int) -> IntArray:
    """(C, C) counts; rows are the truth, columns the prediction."""
    cells = np.bincount(truth * num_classes + predicted, minlength=num_classes * num_classes)
    return cells.reshape(num_classes, num_classes)


def per_class_scores(labels: Sequence[str], matrix: IntArray, confidence: float) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 (each `{value, low, high}`) and support of each class of a confusion matrix (C, C)."""
    right, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        label: {
            "precision": proportion(int(right[i]), int(predicted[i]), confidence),
            "recall": proportion(int(right[i]), int(support[i]), confidence),
            "f1": f1_interval(int(right[i]), int(support[i] + predicted[i] - right[i]), confidence),
            "support": int(support[i]),
        }
        for i, label in enumerate(labels)
    }


def calibration_curve(truth: IntArray, said: FloatArray | Answers, confidence: float) -> list[dict[str, float]]:
    """The reliability diagram of Guo et al. 2017, figure 1: a dict per bin of confidence that has rows.

    `low, high` bound the bin; `confidence` is the mean probability of what was answered in it, `accuracy` the share
    that is right, with Wilson's interval in `accuracy_low, accuracy_high`.
    """
    bins, confidences, right = _binned(*_checked(truth, said))
    rows = np.bincount(bins, minlength=CALIBRATION_BINS)
    sure = np.bincount(bins, weights=confidences, minlength=CALIBRATION_BINS)
    hits = np.bincount(bins, weights=right, minlength=CALIBRATION_BINS)
    curve = []
    for i in np.flatnonzero(rows):
        low, high = wilson(float(hits[i]), float(rows[i]), confidence)
        curve.append(
            {
                "low": float(i / CALIBRATION_BINS),
                "high": float((i + 1) / CALIBRATION_BINS),
                "rows": int(rows[i]),
                "confidence": float(sure[i] / rows[i]),
                "accuracy": float(hits[i] / rows[i]),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return curve


def f1_interval(right: int, touched: int, confidence: float) -> Interval:
    """F1 from the rows of a class that are right, among those that are of it or were called it."""
    jaccard = proportion(right, touched, confidence)
    return {
        "value": 2 * jaccard["value"] / (1 + jaccard["value"]),
        "low": 2 * jaccard["low"] / (1 + jaccard["low"]),
        "high": 2 * jaccard["high"] / (1 + jaccard["high"]),
    }


def _headline_statistic(truth: IntArray, answers: Answers) -> Statistic:
    """(S, N) weights to (S, 3): accuracy, macro-F1, log loss."""
    return together(
        [
            mean_of((answers.classes == truth).astype(np.float64)),
            _macro_f1(truth, answers),
            mean_of(row_log_losses(truth, answers.probabilities)),
        ]
    )


def _macro_f1(truth: IntArray, answers: Answers) -> Statistic:
    return macro_f1_statistic(truth, answers.classes, answers.probabilities.shape[1])


def macro_f1_statistic(truth: IntArray, predicted: IntArray, num_classes: int) -> Statistic:
    """Mean F1 over the classes that occur in truth or prediction of a sample."""
    ones = np.ones(len(truth), np.float32)
    occurrences = _indicator(truth, ones, num_classes) + _indicator(predicted, ones, num_classes)
    hits = _indicator(truth, (truth == predicted).astype(np.float32), num_classes)

    def statistic(weights: FloatArray) -> FloatArray:
        touched = weights @ occurrences  # (S, C): 2 TP + FP + FN
        f1 = np.divide(2 * (weights @ hits), touched, out=np.zeros_like(touched), where=touched > 0)
        return np.asarray(f1.sum(axis=1) / (touched > 0).sum(axis=1))[:, None]

    return statistic


def calibration_error(truth: IntArray, answers: Answers) -> Statistic:
    """Expected calibration error (Guo et al. 2017, eq. 3): mean over rows of |accuracy - confidence| of their bin."""
    bins, confidences, right = _binned(truth, answers)
    gaps = _indicator(bins, (right - confidences).astype(np.float32), CALIBRATION_BINS)
    return lambda weights: (np.abs(weights @ gaps).sum(axis=1) / weights.sum(axis=1))[:, None]


def _binned(truth: IntArray, answers: Answers) -> tuple[IntArray, FloatArray, FloatArray]:
    """(N,) bin number, confidence, and 1 where the answer is right."""
    confidences = answers.confidences
    # Bins are closed above, ((m-1)/M, m/M], as in the paper.
    bins = np.clip(np.ceil(confidences * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    return bins, confidences, (answers.classes == truth).astype(np.float64)


def _indicator(columns: IntArray, values: FloatArray, num_columns: int) -> Any:
    """Sparse (N, num_columns) with one value a row: `weights @ it` sums the values of each column's rows."""
    from scipy import sparse

    rows = np.arange(len(columns))
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(columns), num_columns))


def _checked(
    truth: IntArray, said: FloatArray | Answers, labels: Sequence[str] | None = None
) -> tuple[IntArray, Answers]:
    """The arrays as int64 and float64. Raises `ValueError` where shapes or numbers cannot be right."""
    if isinstance(said, Answers) and said.classes.shape != said.probabilities.shape[:1]:
        raise ValueError(f"{said.classes.shape} answers, but {said.probabilities.shape} probabilities")
    probabilities = np.asarray(said.probabilities if isinstance(said, Answers) else said, np.float64)
    truth = np.asarray(truth, np.int64)
    if probabilities.ndim != 2 or truth.shape != probabilities.shape[:1]:
        raise ValueError(f"truth {truth.shape} and probabilities {probabilities.shape} must be (N,) and (N, C)")
    if labels is not None and len(labels) != probabilities.shape[1]:
        raise ValueError(f"{len(labels)} labels, but {probabilities.shape[1]} columns of probabilities")
    if not len(truth):
        raise ValueError("no rows to score")
    if not np.isfinite(probabilities).all():
        raise ValueError(f"row {int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])} is not finite")
    if truth.min() < 0 or truth.max() >= probabilities.shape[1]:
        raise ValueError(f"class numbers must lie in 0 to {probabilities.shape[1] - 1}")
    answers = Answers.likeliest(probabilities)
    return truth, Answers(probabilities=probabilities, classes=said.classes) if isinstance(said, Answers) else answers
