"""Figures of a model on some of its test rows, which may be few: no interval may claim what few rows cannot know.

Which interval, of a classifier:
- `accuracy`: Wilson's;
- `recall`, the mean recall of the classes that are there: the recalls are proportions of separate rows, so the interval
  of their mean follows from Wilson's of each (`mean_of_proportions`), and never has width zero;
- `macro_f1`: bootstrap over rows, widened for few of them and to what Wilson's of each class give: where all rows are
  right every bootstrap sample is, and would claim certainty;
- `log_loss`: bootstrap over rows, widened for few of them.
Of answers: those of `likelihood` and `answers`, widened for few rows where they are not Wilson's.

References:
- Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of binomial proportions".
- Zou and Donner 2008, "Construction of confidence limits about effect measures: a general approach".

N rows of the group, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from reglaj.evaluation.intervals import (
    Interval,
    bootstrap,
    few_rows,
    mean_of,
    percentile_interval,
    point,
    proportion,
    together,
)
from reglaj.evaluation.metrics.answers import SHARES, JudgedAnswers, answer_scores
from reglaj.evaluation.metrics.classification import (
    SMALLEST_PROBABILITY,
    confusion_matrix,
    f1_interval,
    macro_f1_statistic,
    row_log_losses,
)
from reglaj.evaluation.metrics.likelihood import loss_scores
from reglaj.evaluation.types import FloatArray, IntArray

_LONGEST_RATIO = 100.0
"""All that one answer says about the length of others, by that of their references."""
_MOST_NATS = float(-np.log(SMALLEST_PROBABILITY))


def class_figures(
    truth: IntArray,
    predicted: IntArray,
    probabilities: FloatArray,
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """`accuracy, macro_f1, recall, log_loss` of a group of rows, each `{value, low, high, rows}`; empty without rows.

    truth, predicted: (N,) class numbers. probabilities: (N, C). Macro-F1 is over classes that occur in truth or
    prediction of the group, recall over those in its truth.
    """
    num_rows, num_classes = len(truth), probabilities.shape[1]
    if not num_rows:
        return {}
    matrix = confusion_matrix(truth, predicted, num_classes)
    statistic = together(
        [macro_f1_statistic(truth, predicted, num_classes), mean_of(row_log_losses(truth, probabilities))]
    )
    values = point(statistic, num_rows)
    draws = bootstrap(statistic, num_rows, samples=samples, seed=seed)
    macro_f1, log_loss = (
        few_rows(percentile_interval(float(values[i]), draws[:, i], confidence), num_rows, confidence, whole)
        for i, whole in enumerate([(0.0, 1.0), (0.0, _MOST_NATS)])
    )
    figures = {
        "accuracy": proportion(int(matrix.trace()), num_rows, confidence),
        "macro_f1": _at_least_as_wide(macro_f1, _mean_f1(matrix, confidence)),
        "recall": mean_of_proportions(matrix.diagonal(), matrix.sum(axis=1), confidence),
        "log_loss": log_loss,
    }
    return {name: {**figure, "rows": num_rows} for name, figure in figures.items()}


def loss_figures(
    nll: FloatArray, tokens: IntArray, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """`loss, perplexity` of a group of rows, each `{value, low, high, rows}`; rows without a token count for nothing.

    nll: (N,) nats. tokens: (N,). Empty where no row has a token.
    """
    num_rows = int(np.count_nonzero(tokens))
    if not num_rows:
        return {}
    scores = loss_scores(nll, tokens, confidence=confidence, samples=samples, seed=seed)
    return {name: {**figure, "rows": num_rows} for name, figure in scores.items()}


def answer_figures(
    judged: JudgedAnswers, places: IntArray, *, confidence: float = 0.95, samples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The figures of `answer_scores` on some of the answers, each `{value, low, high, rows}`; empty without any.

    places: numbers of those answers among all that were judged.
    """
    num_rows = len(places)
    if not num_rows:
        return {}
    chosen = JudgedAnswers(**{field.name: getattr(judged, field.name)[places] for field in fields(judged)})
    figures = answer_scores(chosen, confidence=confidence, samples=samples, seed=seed)
    for name, figure in figures.items():
        if name not in SHARES:
            most = max(_LONGEST_RATIO, figure["value"]) if name == "length_ratio" else 1.0
            figures[name] = few_rows(figure, num_rows, confidence, (0.0, most))
    return {name: {**figure, "rows": num_rows} for name, figure in figures.items()}


def mean_of_proportions(successes: IntArray, trials: IntArray, confidence: float) -> Interval:
    """The mean of several shares of separate rows, those without a trial left out."""
    shares = [
        proportion(int(hits), int(tried), confidence) for hits, tried in zip(successes, trials, strict=True) if tried
    ]
    return _mean(shares)


def difference_of(one: Interval, other: Interval) -> Interval:
    """One figure minus another, measured on separate rows, from their intervals (Zou and Donner 2008)."""
    value = one["value"] - other["value"]
    below = ((one["value"] - one["low"]) ** 2 + (other["high"] - other["value"]) ** 2) ** 0.5
    above = ((one["high"] - one["value"]) ** 2 + (other["value"] - other["low"]) ** 2) ** 0.5
    return Interval(value=value, low=value - below, high=value + above)


def _mean(parts: Sequence[Interval]) -> Interval:
    """The interval of the mean of independent figures: each end's distances add up as squares."""
    count = len(parts)
    value = sum(part["value"] for part in parts) / count
    below = sum((part["value"] - part["low"]) ** 2 for part in parts) ** 0.5 / count
    above = sum((part["high"] - part["value"]) ** 2 for part in parts) ** 0.5 / count
    return Interval(value=value, low=max(0.0, value - below), high=min(1.0, value + above))


def _mean_f1(matrix: IntArray, confidence: float) -> Interval:
    """Macro-F1 with the interval that it would have if classes were independent."""
    right, support, said = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    touched = support + said - right
    return _mean([f1_interval(int(right[i]), int(touched[i]), confidence) for i in np.flatnonzero(touched)])


def _at_least_as_wide(one: Interval, other: Interval) -> Interval:
    return Interval(value=one["value"], low=min(one["low"], other["low"]), high=max(one["high"], other["high"]))
