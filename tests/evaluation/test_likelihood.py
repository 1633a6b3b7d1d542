import math

import numpy as np
import pytest

from reglaj.evaluation.metrics.likelihood import LARGEST_LOSS, loss_differences, loss_scores


def rows(num_rows, seed=0, mean=2.0):
    """nll and tokens of rows of uneven length, each with a difficulty of its own."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 60, num_rows)
    return tokens * generator.gamma(8, mean / 8, num_rows), tokens


def test_loss_is_a_ratio_of_sums_and_perplexity_its_power():
    scores = loss_scores([2.0, 30.0], [1, 9])
    assert scores["loss"]["value"] == pytest.approx(3.2), "not the mean of 2.0 and 3.33"
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(3.2))


def test_intervals_hold_their_value_and_are_the_same_in_both_units():
    nll, tokens = rows(300)
    scores = loss_scores(nll, tokens, samples=400)
    loss, perplexity = scores["loss"], scores["perplexity"]
    assert loss["low"] < loss["value"] < loss["high"]
    for end in ("low", "high"):
        assert perplexity[end] == pytest.approx(math.exp(loss[end]), rel=1e-3)
    assert scores == loss_scores(nll, tokens, samples=400)
    assert scores != loss_scores(nll, tokens, samples=400, seed=1)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """The true loss is known: the mean of the difficulties, as length and difficulty are independent."""
    hits = 0
    for seed in range(200):
        low, high = (loss_scores(*rows(80, seed), samples=200, seed=seed)["loss"][end] for end in ("low", "high"))
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_row_without_a_token_counts_for_nothing():
    nll, tokens = rows(50)
    with_empty = loss_scores([*nll, 0.0, math.nan], [*tokens, 0, 0])
    assert with_empty == loss_scores(nll, tokens)


def test_a_worse_model_is_seen_as_worse_and_equal_ones_as_equal():
    ours, tokens = rows(100)
    worse = loss_differences(ours + 0.1 * tokens, ours, tokens)
    assert worse["loss"]["value"] == pytest.approx(0.1)
    assert worse["loss"]["low"] > 0 and worse["perplexity"]["low"] > 0 and worse["loss"]["p"] < 0.05
    better = loss_differences(ours, ours + 0.1 * tokens, tokens)
    assert better["loss"]["high"] < 0 and better["loss"]["value"] == pytest.approx(-0.1)
    same = loss_differences(ours, ours, tokens)
    assert same["loss"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_differences_are_paired():
    """Rows differ far more than models do: only a paired interval can tell them apart."""
    ours, tokens = rows(100)
    theirs = ours + tokens * np.random.default_rng(1).normal(0.02, 0.02, 100)
    paired = loss_differences(ours, theirs, tokens)["loss"]
    alone = loss_scores(ours, tokens)["loss"]
    assert paired["high"] < 0
    assert paired["high"] - paired["low"] < 0.1 * (alone["high"] - alone["low"])


def test_a_broken_model_has_a_perplexity_that_json_can_write():
    scores = loss_scores([4000.0, 8000.0], [2, 2])
    assert scores["loss"]["value"] == 3000
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(LARGEST_LOSS))
    assert all(math.isfinite(bound) for bound in scores["perplexity"].values())


@pytest.mark.parametrize(
    ("nll", "tokens", "told"),
    [
        ([1.0, math.inf], [1, 1], "row 1 is not finite"),
        ([math.nan, 1.0], [1, 1], "row 0 is not finite"),
        ([1.0, 2.0], [0, 0], "no token"),
        ([], [], "no token"),
        ([1.0], [1, 2], r"must all be \(N,\)"),
        ([1.0], [-1], "0 or more"),
    ],
)
def test_what_cannot_be_scored_is_refused(nll, tokens, told):
    with pytest.raises(ValueError, match=told):
        loss_scores(nll, tokens)


def test_few_rows_claim_no_more_than_they_can():
    """Three rows that all say the same cannot make chance less likely than one in four."""
    ours, theirs, tokens = [10.0, 21.0, 29.0], [12.0, 25.0, 35.0], [5, 10, 14]
    differences = loss_differences(ours, theirs, tokens, seed=1)["loss"]
    assert differences["p"] >= 0.25
    alone = loss_scores(ours[:1], tokens[:1])["loss"]
    assert (alone["low"], alone["high"]) == (0.0, LARGEST_LOSS)
    many = loss_differences(ours * 20, theirs * 20, tokens * 20, seed=1)["loss"]
    assert many["p"] < 0.01
    assert differences["high"] - differences["low"] > many["high"] - many["low"]
