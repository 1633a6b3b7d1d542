"""Groups of test rows: how they are made, how sure their figures are, and which of them is the worst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reglaj.evaluation.grouping import EMPTY, EVERY, MOST_GROUPS, NO_NUMBER, OTHER, Slicing, learn_slicing
from reglaj.evaluation.intervals import Interval, proportion
from reglaj.evaluation.metrics.answers import judge
from reglaj.evaluation.metrics.groups import (
    answer_figures,
    class_figures,
    difference_of,
    loss_figures,
    mean_of_proportions,
)
from reglaj.evaluation.slices import MINIMUM_ROWS, Slice, corrected, score_slices


def sizes(slicing, cells, kept=frozenset()):
    names, codes = slicing.groups(cells, kept)
    return dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))


def test_lengths_fall_into_quartiles_with_names_that_say_what_is_in_them():
    learnt = learn_slicing([str(n) for n in range(1, 41)], unit="words", is_number=True)
    assert learnt.ranges() == ["up to 10 words", "11 to 20 words", "21 to 30 words", "31 words and more"]
    found = sizes(learnt, [*map(str, range(1, 41)), "0", "1000"])
    assert found == {"up to 10 words": 11, "11 to 20 words": 10, "21 to 30 words": 10, "31 words and more": 11}


def test_numbers_with_fractions_and_few_or_equal_numbers():
    fractions = learn_slicing([str(n / 4) for n in range(80)])
    assert fractions.ranges() == ["up to 4.75", "over 4.75 to 9.75", "over 9.75 to 14.75", "over 14.75"]
    assert list(sizes(fractions, ["4.75", "4.76", "1e9"])) == ["up to 4.75", "over 4.75 to 9.75", "over 14.75"]
    assert learn_slicing(["3"] * 40, is_number=True).ranges() == [EVERY]
    assert learn_slicing(["1"] * 30 + ["2"] * 30, is_number=True).ranges() == ["up to 1", "2 and more"]
    assert learn_slicing(["1", "1", "2", "3"] * 9, is_number=True).ranges() == ["up to 1", "2", "3 and more"]
    assert learn_slicing([], is_number=True).ranges() == [EVERY]
    assert learn_slicing(["1", "2", "3", "4", "5"] * 20).edges is None, "ratings are values"
    assert learn_slicing([*map(str, range(50)), "n/a"]).edges is None, "one cell is no number"
    assert learn_slicing([*map(str, range(50)), "", None]).edges is not None


def test_cells_without_a_number_are_groups_of_their_own():
    learnt = learn_slicing([str(n) for n in range(100)])
    found = sizes(learnt, ["5", None, "", "  ", "nan", "inf", "x"])
    assert found == {"up to 24": 1, NO_NUMBER: 3, EMPTY: 3}


def test_values_are_ordered_by_how_often_they_occur():
    assert sizes(Slicing(), ["b", "a", "b", None, " c  d ", "b", "a"]) == {"b": 3, "a": 2, "c d": 1, EMPTY: 1}


def test_of_many_values_the_largest_keep_their_names_and_so_do_those_that_a_rule_names():
    cells = [f"v{n:02}" for n in range(30) for _ in range(40 - n)]
    found = sizes(Slicing(), cells, frozenset(["v25", "nowhere"]))
    assert list(found) == [*(f"v{n:02}" for n in range(MOST_GROUPS)), "v25", OTHER]
    assert sum(found.values()) == len(cells)


@given(st.lists(st.one_of(st.none(), st.text(max_size=4), st.integers(-99, 99).map(str)), min_size=1), st.booleans())
def test_every_row_is_in_one_group_and_the_order_of_rows_does_not_matter(cells, is_number):
    learnt = learn_slicing(cells, is_number=is_number)
    assert Slicing.of_facts(learnt.facts()) == learnt
    names, codes = learnt.groups(cells)
    assert len(codes) == len(cells) and len(set(names)) == len(names)
    assert set(codes.tolist()) == set(range(len(names))), "no group without a row"
    backwards, other = learnt.groups(cells[::-1])
    assert backwards == names and other[::-1].tolist() == codes.tolist()


def test_a_few_rows_that_are_all_right_are_no_certainty():
    truth = np.array([0, 1, 2] * 3)
    sure = np.eye(3)[truth]
    figures = class_figures(truth, truth, sure, samples=200)
    for name in ("accuracy", "macro_f1", "recall"):
        assert figures[name]["value"] == figures[name]["high"] == 1.0
        assert figures[name]["low"] < 0.8, name
    one = class_figures(truth[:1], truth[:1], sure[:1], samples=200)
    assert (one["macro_f1"]["low"], one["log_loss"]["low"]) == (0.0, 0.0) and one["log_loss"]["high"] > 16
    assert class_figures(truth[:0], truth[:0], sure[:0]) == {}


def test_figures_of_all_rows_are_those_of_the_test():
    from tests.evaluation.sample_reports import simulate

    from reglaj.evaluation.metrics.classification import classification_scores

    truth, probabilities = simulate(5, 400, skill=2.0)
    whole = classification_scores(list("abcde"), truth, probabilities, samples=300, seed=4)
    figures = class_figures(truth, probabilities.argmax(axis=1), probabilities, samples=300, seed=4)
    for name in ("accuracy", "macro_f1", "log_loss"):
        assert figures[name]["value"] == whole[name]["value"]
    assert figures["accuracy"]["low"] == whole["accuracy"]["low"]
    recalls = [values["recall"]["value"] for values in whole["per_class"].values()]
    assert figures["recall"]["value"] == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("rows", [12, 60])
def test_the_interval_of_a_mean_recall_holds_the_truth(rows):
    """Zou, Huang and Zhang 2009: close to its level where the bootstrap is far below it."""
    generator, shares = np.random.default_rng(1), np.array([0.97, 0.9, 0.6])
    held = 0
    for _ in range(1500):
        found = mean_of_proportions(generator.binomial(rows // 3, shares), np.full(3, rows // 3), 0.95)
        held += found["low"] <= shares.mean() <= found["high"]
    assert 0.93 < held / 1500 < 0.99


def test_the_interval_of_a_difference_holds_the_truth():
    generator, held = np.random.default_rng(2), 0
    for _ in range(1500):
        one, other = generator.binomial(25, 0.7), generator.binomial(300, 0.85)
        found = difference_of(proportion(int(one), 25, 0.95), proportion(int(other), 300, 0.95))
        held += found["low"] <= -0.15 <= found["high"]
    assert 0.93 < held / 1500 < 0.985


def test_a_choice_among_many_widens_the_difference():
    plain = Interval(value=-0.1, low=-0.2, high=-0.02)
    assert corrected(plain, 1, 0.95) == pytest.approx(plain)
    wide = corrected(plain, 20, 0.95)
    assert wide["low"] < -0.2 and wide["high"] > -0.02 and wide["value"] == -0.1
    assert (wide["value"] - wide["low"]) / 0.1 == pytest.approx(3.0233 / 1.96, abs=1e-3)  # z of 1 - 0.05 / 40


def shares_of(right):
    """Scores groups by the share of rows that are right."""
    return lambda rows: (
        {"accuracy": {**proportion(int(right[rows].sum()), len(rows), 0.95), "rows": len(rows)}} if len(rows) else {}
    )


def sliced(**cells):
    made = []
    for name, values in cells.items():
        names, codes = Slicing().groups(values)
        made.append(Slice(name=name, slicing=Slicing(), names=names, codes=codes))
    return made


def test_the_worst_group_is_named_with_the_rest_and_small_ones_are_not_judged():
    region = ["north"] * 100 + ["south"] * 100 + ["tiny"] * (MINIMUM_ROWS - 1)
    right = np.array([1] * 95 + [0] * 5 + [1] * 60 + [0] * 40 + [0] * (MINIMUM_ROWS - 1))
    found = score_slices(sliced(region=region, same=["x"] * len(region)), shares_of(right), {"accuracy": False}, 0.95)
    worst = found["worst"]["accuracy"]
    assert (worst["slice"], worst["group"], worst["rows"], worst["of_groups"]) == ("region", "south", 100, 2)
    assert worst["value"] == 0.6 and worst["rest"]["rows"] == 119
    assert [group["group"] for group in found["by"]["region"]["groups"]] == ["north", "south", "tiny"]
    assert found["by"]["region"]["groups"][2]["figures"]["accuracy"]["value"] == 0.0
    assert found["judged_groups"] == 2, "a slice of one group says nothing that the test does not"


def test_for_a_loss_the_worst_is_the_largest():
    losses = np.array([1.0] * 50 + [2.0] * 50)

    def score(rows):
        value = float(losses[rows].mean())
        return {"loss": {"value": value, "low": value - 0.1, "high": value + 0.1, "rows": len(rows)}}

    found = score_slices(sliced(kind=["a"] * 50 + ["b"] * 50), score, {"loss": True}, 0.95)
    assert found["worst"]["loss"]["group"] == "b" and found["worst"]["loss"]["is_shown"]


def test_where_no_group_is_worse_one_is_seldom_shown_to_be():
    """20 groups of 40 rows that are all alike: without the correction half of the tests would show a worst one."""
    generator, shown = np.random.default_rng(3), 0
    names = [str(i) for i in range(10)]
    for _ in range(200):
        right = generator.binomial(1, 0.8, 400)
        two = sliced(a=list(generator.permutation(np.repeat(names, 40))), b=list(np.repeat(names, 40)))
        shown += score_slices(two, shares_of(right), {"accuracy": False}, 0.95)["worst"]["accuracy"]["is_shown"]
    assert shown / 200 < 0.08


def test_losses_and_answers_of_a_group():
    tokens = np.array([5, 0, 7, 2])
    figures = loss_figures(np.array([5.0, 0.0, 14.0, 2.0]), tokens, samples=200)
    assert figures["loss"]["rows"] == 3 and figures["loss"]["value"] == pytest.approx(21 / 14)
    assert loss_figures(np.zeros(1), np.array([0])) == {}
    judged = judge(["a b c", "d", "x y"], ["a b c", "e", "x z"], ["end", "length", "end"])
    two = answer_figures(judged, np.array([0, 1]), samples=200)
    assert two["exact_match"]["value"] == 0.5 and two["rouge_l"]["rows"] == 2
    one = answer_figures(judged, np.array([0]), samples=200)
    assert (one["rouge_l"]["low"], one["rouge_l"]["high"]) == (0.0, 1.0), "one answer says nothing about others"
    assert answer_figures(judged, np.array([], dtype=int)) == {}
