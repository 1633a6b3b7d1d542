"""Recipes are read as YAML 1.2, and every problem is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from reglaj.core.config import apply_override, dump_yaml, parse_yaml
from reglaj.core.errors import UserError, nearest
from reglaj.pipelines.recipe import load_recipe

GOOD = {"task": "classify", "data": {"sources": [{"path": "rows.csv"}]}}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1.5E+2", 150.0), (".5", 0.5), ("-2", -2), ("no", "no"), ("yes", "yes"), ("on", "on"),
        ("true", True), ("False", False), ("null", None), ("2026-11-22", "2026-11-22"), ("1.2.3", "1.2.3"), ("007", 7),
        ("010", 10), ("0x1F", 31), ("1:30", "1:30"), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_scalars(text, value):
    assert parse_yaml(text, where="") == value
    assert type(parse_yaml(text, where="")) is type(value)


def test_broken_yaml_names_the_line_and_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("task: classify\ndata: [1, 2\n")
    with pytest.raises(UserError, match=r"line 3, column 1: broken YAML"):
        load_recipe(path)
    path.write_text("task: classify\ntask: regress\n")
    with pytest.raises(UserError, match="the key 'task' is given twice"):
        load_recipe(path)
    path.write_text("- a\n")
    with pytest.raises(UserError, match="not a mapping"):
        load_recipe(path)
    with pytest.raises(UserError, match="cannot read the recipe"):
        load_recipe(tmp_path / "none.yaml")


def test_every_problem_is_reported_at_once():
    recipe = {
        "task": "clasify",
        "modle": "x",
        "data": {"sources": [{"path": "a.csv", "colums": {}}], "split": {"train": 0.9, "validation": 0.1, "test": 0.1}},
        "method": {"name": "lora", "rnak": 8, "alpha": "much"},
        "train": {"epochs": True, "batch_size": -1, "early_stopping": {"patience": "x"}},
        "evaluate": {"confidence": 2},
    }
    with pytest.raises(UserError) as caught:
        load_recipe(recipe)
    said = {problem.where: problem for problem in caught.value.problems}
    assert "did you mean 'classify'" in said["task"].remedy
    assert "did you mean 'model'" in said["modle"].remedy
    assert "did you mean 'columns'" in said["data.sources.0.colums"].remedy
    assert "must be 1" in said["data.split"].allowed
    assert "did you mean 'rank'" in said["method.rnak"].remedy
    assert said["train.epochs"].given == "'true'"
    assert {"method.alpha", "train.batch_size", "train.early_stopping.patience", "evaluate.confidence"} <= said.keys()


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("train.epochs", "train.epochs"),
        ("train.epochs=many", "train.epochs"),
        ("data.sources.3.path=x", "item"),
        ("=3", "=3"),
    ],
)
def test_wrong_overrides(override, where):
    with pytest.raises(UserError, match=where):
        load_recipe(GOOD, [override])


def test_overrides_reach_lists_and_short_methods():
    recipe = load_recipe({**GOOD, "method": "lora"}, ["method.rank=4", "data.sources.0.path=b.csv", "train.epochs=3"])
    assert (recipe.method.name, recipe.method.rank) == ("lora", 4)
    assert recipe.data.sources[0].path == "b.csv"
    assert recipe.train.epochs == 3
    values = {"a": {"b": [1, 2]}}
    apply_override(values, "a.b.1=5")
    assert values == {"a": {"b": [1, 5]}}


def test_a_resolved_recipe_loads_again_as_itself(tmp_path):
    recipe = load_recipe({**GOOD, "name": "x", "method": {"name": "lora", "target_modules": ["query"]}})
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path / "r.yaml")
    before, after = recipe.values(), again.values()
    assert after["data"].pop("sources")[0]["path"] == str(Path.cwd() / "rows.csv")
    assert before["data"].pop("sources")[0]["path"] == "rows.csv"
    assert after == before


def test_overrides_and_keys_both_count_and_paths_may_be_paths():
    recipe = load_recipe(
        {**GOOD, "data": {"sources": [{"path": Path("a.csv")}]}}, ["train.epochs=3"], {"train__seed": 4}
    )
    assert (recipe.train.epochs, recipe.train.seed, recipe.data.sources[0].path) == (3, 4, "a.csv")


@pytest.mark.parametrize("name", ["nl\n", "a ", " a", "", "../up", "a/b"])
def test_names_that_are_no_folders(name):
    with pytest.raises(UserError, match="name: "):
        load_recipe({**GOOD, "name": name})


def test_a_recipe_is_called_after_its_file(tmp_path):
    (tmp_path / "my recipe (1).yaml").write_text(dump_yaml(GOOD))
    assert load_recipe(tmp_path / "my recipe (1).yaml").name == "my-recipe-1"


def test_labels_may_be_written_as_numbers():
    recipe = load_recipe({**GOOD, "train": {"class_weights": {0: 2.0}}}, ["data.exclude_labels=[3, no]"])
    assert recipe.data.exclude_labels == ("3", "no")
    assert recipe.train.class_weights == {"0": 2.0}


@pytest.mark.parametrize(
    "text", ["1e5", "0o7", "no", "007", "1:30", "~", "null", "true", ".5", "2026-11-22", "a: b", "ș", ""]
)
def test_a_text_stays_a_text_when_it_is_written_and_read(text):
    assert parse_yaml(dump_yaml({"a": [text]}), where="") == {"a": [text]}


def test_nearest_ignores_case_and_gives_up_on_the_far():
    assert nearest("Labell", ["label", "text"]) == "label"
    assert nearest("zzz", ["label", "text"]) is None
