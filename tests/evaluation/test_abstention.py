"""Thresholds keep what they promise, over many validation parts of one model whose true risk is known."""

import numpy as np
import pytest
from scipy.stats import beta

from reglaj.evaluation.metrics.abstention import on_rows, reachable, risk_coverage, threshold_for

CONFIDENCE = 0.95
SEEDS = 150
MOST_BROKEN = SEEDS * 0.05 + 3 * (SEEDS * 0.05 * 0.95) ** 0.5
"""One in twenty, and three standard deviations of such a count."""


def drawn(num_rows: int, seed: int, *, decimals: int | None = None):
    """Confidences of a model that is right with the probability c^2 (3 - 2c), and whether it was."""
    generator = np.random.default_rng(seed)
    confidences = generator.beta(4, 1.2, num_rows)
    if decimals is not None:
        confidences = confidences.round(decimals)
    return confidences, (generator.random(num_rows) < chance(confidences)).astype(np.int64)


def chance(confidences):
    return confidences**2 * (3 - 2 * confidences)


EVERYTHING = drawn(100_000, 999)[0]


def is_above(threshold: float):
    return np.greater_equal(EVERYTHING, threshold)


def risk(threshold: float) -> float:
    """The true error above a threshold."""
    return float(1 - chance(EVERYTHING[is_above(threshold)]).mean())


@pytest.mark.parametrize("rows, target", [(150, 0.1), (600, 0.05), (2000, 0.03)])
def test_the_target_is_exceeded_by_at_most_one_in_twenty(rows, target):
    found = [threshold_for(*drawn(rows, seed), target, CONFIDENCE) for seed in range(SEEDS)]
    thresholds = [one for one in found if one]
    broken = sum(risk(one.value) > target for one in thresholds)
    assert broken <= MOST_BROKEN
    assert len(thresholds) > SEEDS / 3, "a promise that is never made is worth nothing"
    best = EVERYTHING[np.argsort(-EVERYTHING)]
    reached = np.mean([is_above(one.value).mean() for one in thresholds])
    possible = (np.cumsum(1 - chance(best)) / np.arange(1, len(best) + 1) <= target).mean()
    assert reached > 0.55 * possible


def test_ties_stand_or_fall_together():
    broken = 0
    for seed in range(SEEDS):
        confidences, right = drawn(500, seed, decimals=1)
        found = threshold_for(confidences, right, 0.06, CONFIDENCE)
        if found:
            answered = confidences >= found.value
            assert answered.sum() == found.rows and (1 - right[answered]).sum() == found.errors
            all_rounded = EVERYTHING.round(1)
            broken += (1 - chance(all_rounded[all_rounded >= found.value])).mean() > 0.06
    assert broken <= MOST_BROKEN


def test_what_is_proven_is_the_clopper_pearson_bound():
    right = np.ones(59, dtype=np.int64)
    confidences = np.linspace(0.5, 0.9, 59)
    found = threshold_for(confidences, right, 0.05, CONFIDENCE)  # 0.95^59 = 0.0485
    assert found is not None and found.value == 0.0 and found.coverage == 1.0
    assert threshold_for(confidences[:58], right[:58], 0.05, CONFIDENCE) is None  # 0.95^58 = 0.0510
    right[0] = 0  # the least sure is wrong: everything may not be answered any more
    assert threshold_for(confidences, right, 0.05, CONFIDENCE) is None


def test_everything_is_answered_where_all_rows_show_it():
    right = (np.arange(1000) >= 20).astype(np.int64)
    bound = beta.ppf(CONFIDENCE, 20 + 1, 1000 - 20)
    confidences = np.linspace(0.3, 0.99, 1000)
    assert threshold_for(confidences, right, bound + 1e-4, CONFIDENCE).value == 0.0
    below = threshold_for(confidences, right, bound - 1e-4, CONFIDENCE)
    assert below is not None and below.value > 0 and below.rows < 1000


def test_what_cannot_be_had_says_what_can():
    confidences, right = drawn(200, 1)
    assert threshold_for(confidences, right, 0.001, CONFIDENCE) is None
    target, threshold = reachable(confidences, right, CONFIDENCE)
    assert threshold_for(confidences, right, target, CONFIDENCE) == threshold
    assert threshold_for(confidences, right, target - 0.001, CONFIDENCE) is None
    assert reachable(confidences[:1], np.array([0]), CONFIDENCE) is None


def test_the_curve_is_that_of_the_surest_rows():
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    right = np.array([1, 1, 0, 1, 0])
    curve = risk_coverage(confidences, right, CONFIDENCE)
    assert [point["rows"] for point in curve] == [1, 2, 3, 4, 5]
    assert [point["error"]["value"] for point in curve] == pytest.approx([0, 0, 1 / 3, 1 / 4, 2 / 5])
    assert [point["threshold"] for point in curve] == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert all(p["error"]["low"] <= p["error"]["value"] <= p["error"]["high"] for p in curve)
    tied = risk_coverage(np.array([0.5, 0.5, 0.5]), np.array([1, 0, 1]), CONFIDENCE)
    assert [(point["coverage"], point["rows"]) for point in tied] == [(1.0, 3)]


def test_a_threshold_on_rows_counts_what_it_answers():
    found = on_rows(np.array([0.9, 0.6, 0.4]), np.array([1, 0, 0]), 0.6, CONFIDENCE)
    assert found["rows"] == 2 and found["coverage"]["value"] == pytest.approx(2 / 3) and found["error"]["value"] == 0.5
    none = on_rows(np.array([0.1]), np.array([1]), 0.6, CONFIDENCE)
    assert none["rows"] == 0 and (none["error"]["low"], none["error"]["high"]) == (0.0, 1.0)
