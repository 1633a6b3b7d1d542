"""What the command line tells without working: methods, schema, runs."""

from __future__ import annotations

import json

import pytest

from reglaj.core.errors import UserError
from reglaj.core.runs import begin_run
from reglaj.methods import METHODS
from reglaj.pipelines.describe import describe_methods, describe_runs, recipe_schema
from reglaj.pipelines.recipe import KEYS, load_recipe


def resolve(schema, node):
    return schema["$defs"][node["$ref"].rsplit("/", 1)[-1]] if "$ref" in node else node


def test_every_method_is_listed_and_counted(tiny_model):
    assert [method["name"] for method in describe_methods()] == METHODS.names()
    counted = {method["name"]: method for method in describe_methods(str(tiny_model("bert")))}
    assert 0 == counted["linear-probe"]["share"] < counted["lora"]["share"] < counted["full"]["share"] <= 1


def test_a_model_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError):
        describe_methods(str(tmp_path))


def test_the_schema_is_json_and_its_references_lead_somewhere():
    schema = json.loads(json.dumps(recipe_schema(), allow_nan=False))
    assert schema["$schema"].endswith("2020-12/schema")
    assert set(schema["properties"]) == set(KEYS)

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            for child in node.values():
                yield from references(child)
        elif isinstance(node, list):
            for child in node:
                yield from references(child)

    found = list(references(schema))
    assert found
    assert all(reference.removeprefix("#/$defs/") in schema["$defs"] for reference in found)


def test_the_schema_is_valid_and_agrees_with_the_reader():
    """Where the library that knows the standard is installed: it accepts what we load, and refuses what we refuse."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    good = {"task": "classify", "data": {"sources": [{"path": "a.csv", "columns": {"text": "t"}}]}}
    for method in ({}, {"method": "lora"}, {"method": {"name": "lora", "rank": 4}}, {"method": {"name": "full"}}):
        load_recipe(good | method)
        assert validator.is_valid(good | method)
    for wrong in (
        {"task": "chess"},
        {"method": {"rank": 4}},
        {"method": {"name": "full", "rank": 4}},
        {"train": {"epoch": 1}},
        {"evaluate": {"baselines": ["majorty"]}},
        {"surplus": 1},
    ):
        with pytest.raises(UserError):
            load_recipe(good | wrong)
        assert not validator.is_valid(good | wrong), wrong


def test_keys_carry_their_meaning_and_plug_ins_their_names():
    schema = recipe_schema()
    train = resolve(schema, schema["properties"]["train"])
    assert "Optimizer steps" in train["properties"]["max_steps"]["description"]
    split = schema["$defs"]["SplitConfig"]["properties"]["kind"]["enum"]
    assert {"auto", "stratified"} <= set(split)
    names, *configs = schema["properties"]["method"]["anyOf"]
    assert names["enum"] == METHODS.names()
    assert [resolve(schema, config)["properties"]["name"]["const"] for config in configs] == METHODS.names()


def test_runs_are_listed_oldest_first(tmp_path):
    assert describe_runs(tmp_path / "none") == []
    for identity in ("a", "b"):
        begin_run(tmp_path, "tiny", identity)
    listed = describe_runs(tmp_path)
    assert [run["name"] for run in listed] == ["tiny-001", "tiny-002"]
    assert {run["status"] for run in listed} == {"interrupted"}, "nobody holds their locks"


def test_methods_say_what_they_take_and_who_serves_them(tiny_model):
    listed = {method["name"]: method for method in describe_methods(str(tiny_model("bert")))}
    lora, probe, full = listed["lora"], listed["linear-probe"], listed["full"]
    assert lora["is_mergeable"] and "vLLM" in lora["served_by"] and not full["is_mergeable"]
    assert "chat" not in probe["tasks"] and "classify" in probe["tasks"], "there has to be a head that learns"
    assert "chat" not in lora["tasks"], "an encoder writes nothing"
    assert "chat" in {method["name"]: method for method in describe_methods()}["lora"]["tasks"]
    assert lora["stored_bytes"] == 4 * lora["trainable_parameters"]
    assert 0 < probe["memory_bytes"] < lora["memory_bytes"] < listed["dora"]["memory_bytes"]
    for name, method in listed.items():
        assert method["citation"] and method["architectures"], name
        assert ("problem" in method) == (method["trainable_parameters"] is None), name


def test_a_method_that_cannot_do_a_model_says_what_would_work(tiny_model):
    listed = {method["name"]: method for method in describe_methods(str(tiny_model("llama")))}
    bitfit = listed["bitfit"]
    assert "without biases" in bitfit["problem"] and "lora" in bitfit["remedy"]
    assert bitfit["memory_bytes"] is None


@pytest.mark.parametrize("model", [[], ["bert"]])
def test_the_table_of_methods_is_readable_at_a_hundred_columns(model, tiny_model):
    from typer.testing import CliRunner

    from reglaj.cli.app import app

    shown = CliRunner().invoke(app, ["methods", *(str(tiny_model(name)) for name in model)])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(any(line.startswith(name) for line in lines) for name in METHODS.names())
    assert ("memory" in lines[0]) == bool(model)
