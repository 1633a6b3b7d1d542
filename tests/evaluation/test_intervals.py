import numpy as np
import pytest
from scipy import stats

from reglaj.evaluation.intervals import (
    bootstrap,
    paired_difference,
    percentile_interval,
    point,
    proportion,
    reflected_interval,
    wilson,
)


def mean_of(values):
    return lambda weights: (weights @ values / weights.sum(axis=1))[:, None]


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (1, 10), (5, 10), (10, 10), (632, 965), (1, 100_000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_scipy(hits, rows, confidence):
    theirs = stats.binomtest(hits, rows).proportion_ci(confidence, method="wilson")
    assert wilson(hits, rows, confidence) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_wilson_known_value():
    """Newcombe 1998, table I: 81 of 263."""
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_a_proportion_lies_in_its_interval_and_nothing_tried_says_nothing():
    for rows in range(1, 40):
        for hits in range(rows + 1):
            figure = proportion(hits, rows, 0.95)
            assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
    assert proportion(0, 0, 0.95) == {"value": 0.0, "low": 0.0, "high": 1.0}


def test_bootstrap_is_a_function_of_its_seed_and_not_of_its_chunks(monkeypatch):
    values = np.random.default_rng(0).normal(size=200)
    draws = bootstrap(mean_of(values), 200, samples=300, seed=5)
    assert draws.shape == (300, 1)
    assert np.array_equal(draws, bootstrap(mean_of(values), 200, samples=300, seed=5))
    assert not np.array_equal(draws, bootstrap(mean_of(values), 200, samples=300, seed=6))
    monkeypatch.setattr("reglaj.evaluation.intervals._CHUNK_CELLS", 1000)
    assert np.allclose(draws, bootstrap(mean_of(values), 200, samples=300, seed=5))


def test_bootstrap_draws_rows_with_replacement_and_uniformly():
    weights = bootstrap(lambda weights: weights, 50, samples=4000, seed=1)
    assert (weights.sum(axis=1) == 50).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.08)
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.03)  # multinomial


def test_bootstrap_equals_plain_resampling():
    """The spread of a mean: sigma / sqrt(N)."""
    values = np.random.default_rng(2).exponential(size=400)
    draws = bootstrap(mean_of(values), 400, samples=4000, seed=3)
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.05)
    assert point(mean_of(values), 400)[0] == pytest.approx(values.mean(), rel=1e-6)


def test_percentile_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(4)
    hits = 0
    for seed in range(400):
        values = generator.exponential(size=150)  # skewed, true mean 1
        draws = bootstrap(mean_of(values), 150, samples=400, seed=seed)
        interval = percentile_interval(values.mean(), draws[:, 0], 0.9)
        hits += interval["low"] <= 1 <= interval["high"]
    assert 0.85 <= hits / 400 <= 0.95


def test_paired_difference_has_the_sign_of_the_difference_and_swaps_with_it():
    draws = np.random.default_rng(5).normal(0.03, 0.01, 1000)
    ours, theirs = paired_difference(0.03, draws, 0.95), paired_difference(-0.03, -draws, 0.95)
    assert 0 < ours["low"] < ours["value"] < ours["high"]
    assert ours["p"] == theirs["p"] < 0.02
    assert (theirs["low"], theirs["high"]) == pytest.approx((-ours["high"], -ours["low"]))


def test_p_is_never_zero_and_never_above_one():
    assert paired_difference(1.0, np.ones(999), 0.95)["p"] == pytest.approx(2 / 1000)
    assert paired_difference(0.0, np.zeros(1000), 0.95)["p"] == 1.0


def test_p_is_uniform_where_there_is_no_difference():
    generator = np.random.default_rng(6)
    found = []
    for seed in range(400):
        values = generator.normal(size=120)
        draws = bootstrap(mean_of(values), 120, samples=300, seed=seed)
        found.append(paired_difference(values.mean(), draws[:, 0], 0.95)["p"])
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09
    assert 0.42 <= np.mean(np.array(found) < 0.5) <= 0.58


def test_reflected_interval_holds_its_value_and_is_never_negative():
    draws = np.random.default_rng(7).uniform(0.02, 0.09, 1000)
    interval = reflected_interval(0.015, draws, 0.95)
    assert interval["low"] == 0.0 and interval["high"] >= interval["value"]
    ordinary = reflected_interval(0.05, draws, 0.95)
    assert 0 <= ordinary["low"] < 0.05 < ordinary["high"]


def test_nothing_to_resample_is_refused():
    with pytest.raises(ValueError, match="no rows"):
        bootstrap(mean_of(np.array([])), 0, samples=10, seed=0)
