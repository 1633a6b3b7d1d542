"""Answering only where the model is sure enough: what is answered, and how often that is wrong.

A row is answered where the probability of its answer is at least a threshold. Coverage is the share of rows that is
answered, risk the share of those that is wrong (El-Yaniv and Wiener 2010).

A threshold for a target error is chosen as in Geifman and El-Yaniv 2017, "Selective Classification for Deep Neural
Networks", section 3, with one departure: instead of their union bound over a binary search, thresholds are tested one
after the other from the surest rows on, and the first that fails ends it (fixed sequence testing: Angelopoulos et al.
2021, "Learn then Test", section 2.3). That spends no confidence on the number of thresholds. It rests on the risk not
falling where less sure rows are added: then, with the stated confidence, the error among what is answered is at most
the target for new rows of the same kind.

N rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from reglaj.evaluation.intervals import proportion
from reglaj.evaluation.types import FloatArray, IntArray

POINTS = 20
"""Points of the curve, at equal steps of coverage."""
_STEPS = 100
"""Thresholds that are tried, at most: steps of one percent of the rows."""
_SMALLEST_TARGET = 0.001


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """What is answered at `value` and above: `rows` of the validation rows, of which `errors` were wrong."""

    value: float
    rows: int
    errors: int
    of: int

    @property
    def coverage(self) -> float:
        """Share of the rows that is answered."""
        return self.rows / self.of


def risk_coverage(confidences: FloatArray, is_right: IntArray, confidence: float) -> list[dict[str, Any]]:
    """The curve on some rows, the surest first: a dict per point, with Wilson's interval of the error.

    confidences: (N,) probability of each answer. is_right: (N,) 0 or 1. Rows that are equally sure stand or fall
    together, so a coverage may be a little above the step that it stands for.
    """
    ordered, wrong = _surest_first(confidences, is_right)
    points: list[dict[str, Any]] = []
    for step in range(1, POINTS + 1):
        lowest = ordered[max(1, math.ceil(len(ordered) * step / POINTS)) - 1]
        rows = int(np.count_nonzero(ordered >= lowest))
        if not points or rows > points[-1]["rows"]:
            error = proportion(int(wrong[rows]), rows, confidence)
            share = rows / len(ordered)
            points.append({"coverage": share, "rows": rows, "threshold": float(lowest), "error": error})
    return points


def on_rows(confidences: FloatArray, is_right: IntArray, threshold: float, confidence: float) -> dict[str, Any]:
    """What a threshold does on some rows: `coverage` and `error`, each with Wilson's interval, and `rows` answered."""
    answered = confidences >= threshold
    rows = int(answered.sum())
    wrong = rows - int(np.asarray(is_right)[answered].sum())
    return {
        "coverage": proportion(rows, len(confidences), confidence),
        "error": proportion(wrong, rows, confidence),
        "rows": rows,
    }


def threshold_for(
    confidences: FloatArray, is_right: IntArray, target_error: float, confidence: float
) -> Threshold | None:
    """The lowest threshold at which the error among the answered is at most `target_error`, with `confidence`.

    None where these rows show it for no threshold. That of all rows is 0: everything is answered.
    """
    from scipy.stats import binom

    ordered, wrong = _surest_first(confidences, is_right)
    found = None
    for rows, value in _sequence(ordered, target_error, 1 - confidence):
        # Rows above a given confidence are a sample of all such rows, so their errors are binomial. This is the exact
        # test that stands behind the Clopper-Pearson bound.
        if binom.cdf(wrong[rows], rows, target_error) > 1 - confidence:
            break
        found = Threshold(value=value, rows=rows, errors=int(wrong[rows]), of=len(ordered))
    return found


def reachable(confidences: FloatArray, is_right: IntArray, confidence: float) -> tuple[float, Threshold] | None:
    """The lowest target error, to a tenth of a percent, that has a threshold, and that threshold."""
    for tenths in range(1, 1000):
        target = tenths * _SMALLEST_TARGET
        if threshold := threshold_for(confidences, is_right, target, confidence):
            return target, threshold
    return None


def _sequence(ordered: FloatArray, target_error: float, delta: float) -> Iterator[tuple[int, float]]:
    """How many of the surest rows are tested, in order, and the threshold that answers exactly those.

    It begins where the test would still pass at half the target, so that one mistake among the surest rows is not the
    end; with fewer rows at the half of them, and never below what no mistake at all would prove. None of this looks at
    which rows are right.
    """
    total = len(ordered)
    fewest = math.ceil(math.log(delta) / math.log1p(-target_error))
    start = max(fewest, min(_passes_at_half(target_error, delta, total), total // 2))
    step = max(1, total // _STEPS)
    last = 0
    for count in [*range(start, total, step), total] if start <= total else []:
        # Above the next row, not at the last one that is counted: given that bound, the rows above it are a sample.
        bound = ordered[count] if count < total else -np.inf
        rows = int(np.count_nonzero(ordered > bound))  # fewer where some are equally sure
        if rows >= fewest and rows > last:
            last = rows
            yield rows, float(np.nextafter(bound, np.inf)) if count < total else 0.0


def _passes_at_half(target_error: float, delta: float, most: int) -> int:
    """Rows from which on the test passes when half of the allowed errors are made; `most` where that is more."""
    from scipy.stats import binom

    # The expected errors decide it, and a hundred of them are more than any confidence needs.
    most = min(most, math.ceil(100 / target_error))
    counts = np.arange(1, most + 1)
    fails = np.flatnonzero(binom.cdf(np.floor(counts * target_error / 2), counts, target_error) > delta)
    return min(most, int(fails[-1]) + 2 if len(fails) else 1)


def _surest_first(confidences: FloatArray, is_right: IntArray) -> tuple[FloatArray, IntArray]:
    """(N,) confidences, falling, and (N + 1,) how many of the first k rows are wrong."""
    order = np.argsort(-np.asarray(confidences), kind="stable")
    wrong = 1 - np.asarray(is_right)[order].astype(np.int64)
    return np.asarray(confidences, np.float64)[order], np.concatenate(([0], np.cumsum(wrong)))
