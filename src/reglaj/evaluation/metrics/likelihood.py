"""How likely a model finds the true answers: loss and perplexity, with intervals, and paired differences.

The loss is that of training: negative log-likelihoods summed over all supervised tokens of all rows, divided once by
their number, in nats per token. Rows are resampled whole (the tokens of one answer hang together), so the bootstrap is
one of a ratio of sums. A row without a token counts for nothing and is left out before anything is drawn.

N rows, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reglaj.evaluation.intervals import (
    Difference,
    Interval,
    Statistic,
    bootstrap,
    few_rows,
    paired_difference,
    percentile_interval,
    point,
    ratio_of_sums,
)
from reglaj.evaluation.types import FloatArray, IntArray

LARGEST_LOSS = 50.0
"""Perplexity is exp(loss), of a loss of at most this: 5e21. Guessing among a million tokens costs 13.8 nats, so only a
broken model comes near, and its perplexity stays a number that JSON has a word for."""

NAMES = ("loss", "perplexity")
_ALL = {"loss": (0.0, LARGEST_LOSS), "perplexity": (1.0, float(np.exp(LARGEST_LOSS)))}
"""Everything that a figure can be: all that one row alone says about others."""


def loss_scores(
    nll: FloatArray | Sequence[float],
    tokens: IntArray | Sequence[int],
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """`loss` in nats per token and `perplexity`, each `{value, low, high}`.

    nll: (N,) nats, summed over the tokens of each row. tokens: (N,) how many those are. Raises `ValueError` where
    there is no token at all, or where a row is not finite, naming the row.
    """
    (losses,), counts = _checked([nll], tokens)
    statistic = _loss_and_perplexity(losses, counts)
    values = point(statistic, len(counts))
    draws = bootstrap(statistic, len(counts), samples=samples, seed=seed)
    return {
        name: few_rows(
            percentile_interval(float(values[column]), draws[:, column], confidence),
            len(counts),
            confidence,
            _ALL[name],
        )
        for column, name in enumerate(NAMES)
    }


def loss_differences(
    ours: FloatArray | Sequence[float],
    theirs: FloatArray | Sequence[float],
    tokens: IntArray | Sequence[int],
    *,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Model minus baseline on the same rows and tokens, for `loss` and `perplexity`: `{value, low, high, p}`.

    ours, theirs: (N,) nats. Paired bootstrap: each sample draws rows once and scores both on them. Below zero, the
    model is better. Raises as `loss_scores` does.
    """
    (model, baseline), counts = _checked([ours, theirs], tokens)
    of_model, of_baseline = _loss_and_perplexity(model, counts), _loss_and_perplexity(baseline, counts)

    def difference(weights: FloatArray) -> FloatArray:
        return of_model(weights) - of_baseline(weights)

    values = point(difference, len(counts))
    draws = bootstrap(difference, len(counts), samples=samples, seed=seed)
    found = {}
    for column, name in enumerate(NAMES):
        paired = paired_difference(float(values[column]), draws[:, column], confidence)
        most = _ALL[name][1]
        wide = few_rows(paired, len(counts), confidence, (-most, most))
        # Of N signs that chance could turn, no pattern is rarer than all alike: Fisher's sign-flip test, two-sided.
        found[name] = Difference(**wide, p=max(paired["p"], 2.0 ** (1 - len(counts))))
    return found


def _loss_and_perplexity(nll: FloatArray, tokens: FloatArray) -> Statistic:
    """(S, N) weights to (S, 2)."""
    ratio = ratio_of_sums(nll, tokens)

    def statistic(weights: FloatArray) -> FloatArray:
        loss = ratio(weights)
        return np.concatenate([loss, np.exp(np.minimum(loss, LARGEST_LOSS))], axis=1)

    return statistic


def _checked(
    models: Sequence[FloatArray | Sequence[float]], tokens: IntArray | Sequence[int]
) -> tuple[list[FloatArray], FloatArray]:
    """The rows that have a token, as float64."""
    counts = np.asarray(tokens, np.float64)
    losses = [np.asarray(nll, np.float64) for nll in models]
    if counts.ndim != 1 or any(nll.shape != counts.shape for nll in losses):
        raise ValueError(f"losses {[nll.shape for nll in losses]} and tokens {counts.shape} must all be (N,)")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("numbers of tokens must be 0 or more")
    scored = np.flatnonzero(counts)
    if not len(scored):
        raise ValueError("no token to score: every row is empty")
    for nll in losses:
        # Leaving such a row out would make a model look better for failing on it.
        if len(broken := scored[~np.isfinite(nll[scored])]):
            raise ValueError(f"the loss of row {int(broken[0])} is not finite")
    return [nll[scored] for nll in losses], counts[scored]
