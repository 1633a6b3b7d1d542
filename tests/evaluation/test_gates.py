"""The gate: what is refused before training, and which end of an interval counts."""

from __future__ import annotations

import numpy as np
import pytest

from reglaj.core.config import validate
from reglaj.core.errors import UserError
from reglaj.evaluation.config import EvaluateConfig
from reglaj.evaluation.gates import failed_rules, groups_named, judge, read_gate
from reglaj.pipelines.recipe import load_recipe
from reglaj.tasks import TASKS

TEST = {
    "accuracy": {"value": 0.82, "low": 0.79, "high": 0.85},
    "macro_f1": {"value": 0.80, "low": 0.74, "high": 0.86},
    "log_loss": {"value": 0.5, "low": 0.4, "high": 0.6},
}
PLANS = {name: TASKS.get(name).report_plan() for name in ("classify", "chat")}


def read(gate, slices=(), task="classify"):
    plan = PLANS[task]
    return read_gate(gate, slices, plan.figures, plan.slice_figures)


def group(name, rows, **figures):
    low_high = {
        figure: {"value": v, "low": round(v - 0.05, 6), "high": round(v + 0.05, 6), "rows": rows}
        for figure, v in figures.items()
    }
    return {"group": name, "rows": rows, "figures": low_high}


SLICES = {
    "minimum_rows": 20,
    "by": {
        "region": {"groups": [group("north", 90, recall=0.8), group("south", 40, recall=0.6)]},
        "kind": {"groups": [group("a", 120, recall=0.75), group("b", 10, recall=0.1)]},
    },
}


def judged(gate, slices=SLICES):
    rules, problems = read(gate, ["region", "kind"])
    assert not problems, problems
    return judge(rules, TEST, slices)


@pytest.mark.parametrize(
    ("gate", "passes"),
    [
        ({"accuracy": ">= 0.79"}, True),
        ({"accuracy": ">= 0.8"}, False),  # the figure is above it, and may well lie below
        ({"accuracy": ">=0.79"}, True),
        ({"log_loss": "<= 0.6"}, True),
        ({"log_loss": "<= 0.55"}, False),
        ({"accuracy": ">= 0.79", "macro_f1": ">= 0.8"}, False),
        ({"worst_slice.recall": ">= 0.55"}, True),
        ({"worst_slice.recall": ">= 0.56"}, False),
        ({"slice.region.north.recall": ">= 0.75"}, True),
        ({"slice.region.south.recall": ">= 0.75"}, False),
    ],
)
def test_the_end_that_is_nearer_to_failing_counts(gate, passes):
    found = judged(gate)
    assert found["passed"] is passes
    assert len(found["rules"]) == len(gate)
    assert bool(failed_rules({"gate": found})) is not passes


def test_the_worst_group_has_enough_rows_and_is_named():
    (rule,) = judged({"worst_slice.recall": ">= 0.6"})["rules"]
    assert (rule["slice"], rule["group"], rule["figure"]["rows"]) == ("region", "south", 40)
    assert rule["told"] == (
        "worst_slice.recall >= 0.6 fails: the lower end is 0.550 in region = south (0.600 [0.550, 0.650], 40 rows)"
    )


def test_what_was_not_measured_does_not_pass():
    none = {
        "minimum_rows": 20,
        "by": {"region": {"groups": [group("north", 19, recall=1.0), group("south", 5, recall=1)]}},
    }
    (rule,) = judged({"worst_slice.recall": ">= 0.1"}, none)["rules"]
    assert not rule["passed"] and "no slice has two groups of which one has 20 test rows" in rule["told"]
    (rule,) = judged({"slice.region.east.recall": ">= 0.1"})["rules"]
    assert not rule["passed"] and "no test row is in it; groups of region: north, south" in rule["told"]


@pytest.mark.parametrize(
    ("gate", "slices", "words"),
    [
        ({"acuracy": ">= 0.8"}, (), "did you mean 'accuracy'?"),
        ({"bleu": ">= 0.8"}, (), "accuracy, macro_f1, log_loss"),
        ({"accuracy": "0.8"}, (), 'write `accuracy: ">= 0.8"`'),
        ({"accuracy": "> 0.8"}, (), "`>=` or `<=` and a number"),
        ({"accuracy": ">= nan"}, (), "`>=` or `<=` and a number"),
        ({"accuracy": ">= 80"}, (), 'write ">= 0.8"'),
        ({"accuracy": "<= 0.8"}, (), "would refuse good models"),
        ({"log_loss": ">= 0.3"}, (), 'write `log_loss: "<= 0.3"`'),
        ({"worst_slice.recall": ">= 0.6"}, (), "add `slices: [length]`"),
        ({"worst_slice.bleu": ">= 0.6"}, ("length",), "accuracy, macro_f1, recall, log_loss"),
        ({"worst_slice.region.recall": ">= 0.6"}, ("region",), "unknown figure"),
        ({"slice.regio.north.recall": ">= 0.6"}, ("region",), "did you mean slice.region.GROUP.recall?"),
        ({"slice.region.recall": ">= 0.6"}, ("region",), "with a slice of `evaluate.slices`: region"),
        ({"region.recall": ">= 0.6"}, ("region",), "unknown figure 'region.recall'"),
    ],
)
def test_a_rule_that_cannot_be_understood_is_refused_with_what_would_work(gate, slices, words):
    rules, problems = read(gate, slices)
    assert not rules
    (problem,) = problems
    assert words in str(problem) and problem.where == f"evaluate.gate.{next(iter(gate))}"


def test_all_problems_are_told_at_once():
    _, problems = read({"a": ">= 1", "b": ">= 1", "accuracy": "x"})
    assert len(problems) == 3


def test_slices_and_groups_may_have_dots():
    rules, problems = read(
        {"slice.a.b.v1.0.recall": ">= 0.5", "slice.a.x.recall": ">= 0.5", "worst_slice.recall": ">= 0.1"}, ["a", "a.b"]
    )
    assert not problems
    assert list(groups_named(rules)) == [("a.b", "v1.0"), ("a", "x")]


def test_a_ratio_has_no_better_side():
    rules, problems = read({"length_ratio": "<= 1.5"}, task="chat")
    assert not problems and judge(rules, {"length_ratio": {"value": 1.2, "low": 1.0, "high": 1.4}}, None)["passed"]
    assert read({"length_ratio": ">= 0.5"}, task="chat")[1] == []


def test_it_is_read_with_the_recipe():
    recipe = {"task": "classify", "data": {"sources": [{"path": "x.csv"}]}}
    with pytest.raises(UserError, match=r"evaluate\.gate\.acuracy"):
        load_recipe(recipe | {"evaluate": {"gate": {"acuracy": ">= 0.5"}}})
    with pytest.raises(UserError, match="no answer is generated"):
        load_recipe(recipe | {"task": "chat", "evaluate": {"gate": {"rouge_l": ">= 0.5"}, "generate_rows": 0}})
    loaded = load_recipe(recipe, ["evaluate.slices=[length]", "evaluate.gate.worst_slice.recall='>= 0.6'"])
    assert loaded.evaluate.gate == {"worst_slice.recall": ">= 0.6"}
    assert load_recipe(dict(recipe, evaluate=loaded.values()["evaluate"])).evaluate == loaded.evaluate


def test_slices_are_named_once_and_say_which_columns_they_need():
    config = EvaluateConfig(slices=("length", "column:length", "region"))
    assert config.slice_columns == ("length", "region")
    for slices in (["region", "region"], ["column: "], [""]):
        with pytest.raises(UserError, match=r"evaluate\.slices"):
            validate(EvaluateConfig, {"slices": slices}, where="evaluate")


def test_the_worst_group_of_many_must_pass_by_itself():
    """No correction is needed: however many groups there are, a bad one fails as often as it would alone."""
    rules, _ = read({"worst_slice.accuracy": ">= 0.7"}, ["s"])
    from reglaj.evaluation.intervals import proportion

    generator, passed = np.random.default_rng(0), 0
    for _ in range(400):
        right = generator.binomial(100, [0.7, *[0.95] * 20])
        groups = [
            {"group": str(i), "rows": 100, "figures": {"accuracy": {**proportion(int(n), 100, 0.95), "rows": 100}}}
            for i, n in enumerate(right)
        ]
        passed += judge(rules, {}, {"minimum_rows": 20, "by": {"s": {"groups": groups}}})["passed"]
    assert passed / 400 < 0.05
