"""Answers chosen for macro-F1: an offset for each class, added to its log-probability before the largest is taken.

The likeliest class is the answer that is right most often. Where classes are of very different size that is not what
maximises macro-F1, which counts every class alike; then rare classes should be said earlier. Two families of offsets:

- `frequency`: -tau times the logarithm of the class's share of the validation rows, one number tau for all classes
  (Menon et al. 2021, "Long-tail learning via logit adjustment", section 4.1).
- `class`: on top of it a step for each class that has rows enough, by coordinate ascent on macro-F1.

With few rows either of them fits noise. So each row is answered with the offsets of the other folds, the family that
does better so is taken, and only where the interval of its paired gain in macro-F1 lies above zero.

N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from reglaj.evaluation.metrics.calibration import FOLDS, folds_of
from reglaj.evaluation.metrics.classification import (
    SMALLEST_PROBABILITY,
    Answers,
    classification_differences,
    point_metrics,
)
from reglaj.evaluation.types import FloatArray, IntArray

FEWEST_ROWS = 10
"""Validation rows of a class below which it gets no offset of its own."""
_TAUS = np.arange(-0.5, 1.51, 0.125)
_STEPS = np.arange(-2.0, 2.01, 0.25)
_PASSES = 3
_COST = 0.01
"""Macro-F1 that a class's own step of 1 has to bring, times the classes: what gains nothing stays at zero."""


def answers_with(probabilities: FloatArray, offsets: FloatArray | None) -> Answers:
    """Probabilities (N, C), and the classes that are answered with offsets (C,): the likeliest without."""
    if offsets is None:
        return Answers.likeliest(probabilities)
    return Answers(probabilities=probabilities, classes=(_logs(probabilities) + offsets).argmax(axis=1))


def choose_thresholds(
    labels: Sequence[str],
    truth: IntArray,
    probabilities: FloatArray,
    *,
    confidence: float,
    samples: int,
    seed: int,
) -> tuple[dict[str, Any], Answers]:
    """The offsets to answer with, and why, as JSON values; and what they say of each row, fitted without it.

    `offsets` by label, null where nothing is `applied`; `family`; `macro_f1` and `accuracy` with `before`, `after` and
    the paired `difference`, every row answered with the offsets of the other folds.
    """
    plain = Answers.likeliest(probabilities)
    folds = folds_of(truth, seed)
    tried = {name: _held_out(fit, truth, probabilities, folds) for name, fit in _FAMILIES.items()}
    scores = {name: point_metrics(truth, answers)["macro_f1"] for name, answers in tried.items()}
    best = max(scores, key=lambda name: scores[name])
    differences = classification_differences(
        labels, truth, tried[best], plain, confidence=confidence, samples=samples, seed=seed
    )
    is_applied = differences["macro_f1"]["low"] > 0
    offsets = _FAMILIES[best](truth, probabilities) if is_applied else None
    before, after = point_metrics(truth, plain), point_metrics(truth, tried[best])
    told = {
        "applied": is_applied,
        "family": best,
        "rows": len(truth),
        "offsets": None if offsets is None else dict(zip(labels, offsets.tolist(), strict=True)),
        **{
            name: {"before": before[name], "after": after[name], "difference": differences[name]}
            for name in ("macro_f1", "accuracy")
        },
    }
    return told, tried[best] if is_applied else plain


def by_frequency(truth: IntArray, probabilities: FloatArray) -> FloatArray:
    """(C,) offsets of the best tau; among equals the one nearest to zero."""
    logs = _logs(probabilities)
    tilt = _tilt(truth, probabilities.shape[1])
    values = [_macro_f1(truth, (logs + tau * tilt).argmax(axis=1), len(tilt)) for tau in _TAUS]
    return np.asarray(_TAUS[_best(values, _TAUS)] * tilt)


def by_class(truth: IntArray, probabilities: FloatArray) -> FloatArray:
    """(C,) offsets: those by frequency, and a step for each class that gains by it."""
    num_classes = probabilities.shape[1]
    common = by_frequency(truth, probabilities)
    logs = _logs(probabilities) + common
    own = np.zeros(num_classes)
    has_rows = np.bincount(truth, minlength=num_classes) >= FEWEST_ROWS
    for _ in range(_PASSES):
        before = own.copy()
        for c in np.flatnonzero(has_rows):
            own[c] = _step(truth, logs + own, int(c), own[c])
        if (own == before).all():
            break
    return common + own


def _step(truth: IntArray, scores: FloatArray, c: int, now: float) -> float:
    """The step of class c with the highest macro-F1, less what a step costs; scores hold the step it has now."""
    others = scores.copy()
    others[:, c] = -np.inf
    other = others.argmax(axis=1)
    lead = scores[:, c] - now - others[np.arange(len(truth)), other]
    num_classes = scores.shape[1]
    values = [
        _macro_f1(truth, np.where(lead + step > 0, c, other), num_classes) - _COST * abs(step) / num_classes
        for step in _STEPS
    ]
    return float(_STEPS[_best(values, _STEPS)])


def _held_out(
    fit: Callable[[IntArray, FloatArray], FloatArray], truth: IntArray, probabilities: FloatArray, folds: IntArray
) -> Answers:
    classes = probabilities.argmax(axis=1)
    for fold in range(FOLDS):
        held, others = folds == fold, folds != fold
        if held.any() and others.any():
            offsets = fit(truth[others], probabilities[others])
            classes[held] = answers_with(probabilities[held], offsets).classes
    return Answers(probabilities=probabilities, classes=classes)


def _best(values: Sequence[float], steps: FloatArray) -> int:
    """The place of the highest value; among equals the smallest step, which changes the fewest answers."""
    found = np.flatnonzero(np.asarray(values) >= max(values) - 1e-12)
    return int(found[np.abs(steps[found]).argmin()])


def _tilt(truth: IntArray, num_classes: int) -> FloatArray:
    """(C,) minus the logarithm of each class's share, as if each had been seen half a time more."""
    counts = np.bincount(truth, minlength=num_classes) + 0.5
    return np.asarray(-np.log(counts / counts.sum()))


def _macro_f1(truth: IntArray, classes: IntArray, num_classes: int) -> float:
    right = np.bincount(truth[truth == classes], minlength=num_classes)
    touched = np.bincount(truth, minlength=num_classes) + np.bincount(classes, minlength=num_classes)
    occurring = touched > 0
    return float((2 * right[occurring] / touched[occurring]).mean())


def _logs(probabilities: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(probabilities, SMALLEST_PROBABILITY)))


_FAMILIES = {"frequency": by_frequency, "class": by_class}
