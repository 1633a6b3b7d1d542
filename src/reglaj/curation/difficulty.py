"""A first guess of how hard the labels are to tell: what a linear probe on frozen embeddings reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reglaj.curation.probing import FOLDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def difficulty(probabilities: NDArray[np.float64], targets: NDArray[np.int64], confidence: float) -> dict[str, Any]:
    """Accuracy of cross-validated `probabilities` (N, C) on `targets` (N,), with its Wilson interval, beside the share
    of the most frequent label. As JSON values."""
    import numpy as np
    from scipy.stats import binomtest

    right, rows = int((probabilities.argmax(axis=1) == targets).sum()), len(targets)
    interval = binomtest(right, rows).proportion_ci(confidence, method="wilson")
    majority = float(np.bincount(targets).max() / rows)
    return {
        "metric": "accuracy",
        "value": right / rows,
        "low": float(interval.low),
        "high": float(interval.high),
        "majority": majority,
        "rows": rows,
        "folds": FOLDS,
        "note": _note(right / rows, float(interval.low), majority),
    }


def _note(value: float, low: float, majority: float) -> str:
    if low <= majority:
        return (
            "frozen embeddings tell nothing about the labels: they may be noise, or need what the text alone lacks; "
            "look at label errors before training"
        )
    left = (value - majority) / max(1e-9, 1 - majority)
    if left >= 0.9:
        return "easy: frozen embeddings nearly suffice, so fine-tuning has little to add"
    if left >= 0.5:
        return "a fair task: the labels can be seen in frozen embeddings, and fine-tuning has room to add"
    return "hard: frozen embeddings see little of the labels; fine-tuning has to find what tells them apart"
