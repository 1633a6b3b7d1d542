"""What cannot work with a method is refused before training, with what would work, all at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.tiny import recipe_for, write_model, write_rows
from tests.tiny_chat import write_chat_model, write_conversations
from transformers import BertConfig, BertModel

import reglaj
from reglaj.core.errors import Problem, UserError
from reglaj.methods import METHODS
from reglaj.models.inspect import ModelFacts
from reglaj.pipelines.check import check


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad-input")
    for family in ("bert", "llama", "t5"):
        write_model(folder / family, family)
    write_rows(folder / "rows.jsonl", 90)
    write_chat_model(folder / "chat")
    write_conversations(folder / "turns.jsonl", 60)
    return folder


def recipe(place: Path, method: Any, model: str = "bert", **train: Any) -> dict[str, Any]:
    if model == "chat":
        return {
            "task": "chat",
            "model": str(place / "chat"),
            "data": {"sources": [{"path": str(place / "turns.jsonl")}]},
            "method": method,
            "train": train,
            "evaluate": {"baselines": []},
        }
    return recipe_for(place / model, place / "rows.jsonl", method=method, train=train)


def refused(values: dict[str, Any], tmp_path: Path) -> list[Problem]:
    """What `check` says, which is what `train` says; neither leaves a run behind."""
    runs = tmp_path / "runs"
    found = []
    for verb in (lambda: check(values, runs=runs), lambda: reglaj.train(values, runs=runs)):
        with pytest.raises(UserError) as caught:
            verb()
        found.append(list(caught.value.problems))
    assert found[0] == found[1] and not list(runs.glob("[!.]*"))
    for problem in found[0]:
        assert problem.where and problem.given and problem.allowed and problem.why and problem.remedy
    return found[0]


def bert_base_uncased() -> ModelFacts:
    """The facts of that model, names and shapes as its files have them; nothing is fetched, and nothing is held."""
    import torch

    config = BertConfig()  # its defaults are those of bert-base-uncased
    with torch.device("meta"):
        model = BertModel(config)
    tensors = {f"bert.{key}": tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    values = config.to_dict() | {"architectures": ["BertForMaskedLM"]}
    return ModelFacts(name="bert-base-uncased", folder=Path(), config=values, tensors=tensors)


def test_the_article_that_began_this_is_told_the_right_targets() -> None:
    """LoRA on `bert-base-uncased` with `q_lin` and `v_lin`: these are DistilBERT's."""
    facts = bert_base_uncased()
    assert facts.parameters == 109_482_240 and len(facts.linear_modules()) == 72
    method = METHODS.get("lora")
    problems = method.check(method.config_type(name="lora", target_modules=["q_lin", "v_lin"]), facts)
    told = {problem.given.split()[0]: problem for problem in problems}
    assert told.keys() == {"'q_lin'", "'v_lin'"}
    for target, meant in (("'q_lin'", "query"), ("'v_lin'", "value")):
        problem = told[target]
        assert problem.where == "method.target_modules" and "bert-base-uncased" in problem.given
        assert problem.remedy == f"did you mean {meant!r}?"
        assert {"query", "key", "value"} <= set(problem.allowed.replace(",", "").split())
    right = method.config_type(name="lora", target_modules=["query", "value"], rank=8)
    assert method.check(right, facts) == []
    assert method.trainable_parameters(right, facts) == 12 * 2 * 8 * (768 + 768) == 294_912


TARGETED = [name for name in METHODS if "target_modules" in METHODS.get(name).config_type.model_fields]


@pytest.mark.parametrize("name", TARGETED)
def test_every_method_with_targets_says_the_same(name: str) -> None:
    facts, method = bert_base_uncased(), METHODS.get(name)
    extra = {"type": "LOHA"} if name == "peft" else {}
    problems = method.check(method.config_type(name=name, target_modules=["q_lin", "v_lin"], **extra), facts)
    remedies = " ".join(problem.remedy for problem in problems)
    assert len(problems) == 2 and "'query'" in remedies and "'value'" in remedies


@pytest.mark.parametrize("name", TARGETED)
def test_an_empty_list_of_targets_is_not_taken_for_all_of_them(name: str) -> None:
    facts, method = bert_base_uncased(), METHODS.get(name)
    extra = {"type": "LOHA"} if name == "peft" else {}
    (problem,) = method.check(method.config_type(name=name, target_modules=[], **extra), facts)
    assert problem.where == "method.target_modules" and "query" in problem.allowed


@pytest.mark.parametrize("name", ["lora", "qlora", "dora"])
def test_a_target_that_matches_nothing_and_a_rank_above_the_layer(place: Path, tmp_path: Path, name: str) -> None:
    (problem,) = refused(recipe(place, {"name": name, "target_modules": ["q_proj"]}), tmp_path)
    assert problem.where == "method.target_modules" and "'query'" in problem.remedy
    (problem,) = refused(recipe(place, {"name": name, "rank": 33}), tmp_path)
    assert problem.where == "method.rank" and "1 to 32" in problem.allowed
    (problem,) = refused(recipe(place, {"name": name, "layers": 3}), tmp_path)
    assert problem.where == "method.layers" and "1 to 2" in problem.allowed


def test_targets_that_are_in_none_of_the_layers_named() -> None:
    """Shared layers are one in the files, and a whole name is of one layer."""
    facts = bert_base_uncased()
    shared = {key: shape for key, shape in facts.tensors.items() if not key.startswith("bert.encoder.layer.")}
    shared |= {key: shape for key, shape in facts.tensors.items() if key.startswith("bert.encoder.layer.0.")}
    method = METHODS.get("lora")
    section = method.config_type(name="lora", layers=2)
    (problem,) = method.check(section, replace(facts, tensors=shared))
    assert problem.where == "method.layers" and problem.allowed.endswith(": 0") and "remove the key" in problem.remedy
    section = method.config_type(name="lora", layers=2, target_modules=["bert.encoder.layer.3.attention.self.query"])
    (problem,) = method.check(section, facts)
    assert problem.where == "method.layers" and problem.allowed.endswith(": 3")
    bare = {key: shape for key, shape in facts.tensors.items() if ".layer." not in key}
    (problem,) = method.check(method.config_type(name="lora"), replace(facts, tensors=bare))
    assert problem.where == "method.target_modules", "no key of layers was given"


@pytest.mark.parametrize("name", ["prefix", "prompt", "p-tuning"])
@pytest.mark.parametrize("count", [60, 64, 1000])
def test_a_prompt_that_leaves_no_room(place: Path, tmp_path: Path, name: str, count: int) -> None:
    (problem,) = refused(recipe(place, {"name": name, "num_virtual_tokens": count}), tmp_path)
    assert problem.where == "method.num_virtual_tokens" and problem.allowed == "up to 56"


@pytest.mark.parametrize("name", ["prefix", "prompt"])
def test_words_that_the_vocabulary_does_not_have_are_no_beginning(place: Path, tmp_path: Path, name: str) -> None:
    values = recipe(place, {"name": name, "init_text": "\u0416 \u0416"})
    with pytest.raises(UserError) as caught:
        reglaj.train(values, runs=tmp_path / "runs")
    (problem,) = caught.value.problems
    assert problem.where == "method.init_text" and "\u0416" in problem.given and problem.remedy


@pytest.mark.parametrize("name", ["prefix", "prompt", "p-tuning"])
def test_a_prompt_beside_texts_that_are_too_long(place: Path, tmp_path: Path, name: str) -> None:
    values = recipe(place, {"name": name, "num_virtual_tokens": 10}, max_tokens=60)
    (problem,) = refused(values, tmp_path)
    assert problem.where == "train.max_tokens" and "up to 54" in problem.allowed and "10 virtual" in problem.given


def test_a_probe_where_there_is_no_head(place: Path, tmp_path: Path) -> None:
    (problem,) = refused(recipe(place, "linear-probe", "chat"), tmp_path)
    assert problem.where == "method.name" and "nothing would learn" in problem.why


def test_biases_that_a_model_does_not_have(place: Path, tmp_path: Path) -> None:
    (problem,) = refused(recipe(place, "bitfit", "chat"), tmp_path)
    assert problem.where == "method.name" and "norms: true" in problem.remedy
    assert check(recipe(place, {"name": "bitfit", "norms": True}, "chat"), runs=tmp_path)


@pytest.mark.parametrize("name", METHODS.names())
def test_no_method_makes_a_classifier_of_an_encoder_decoder(place: Path, tmp_path: Path, name: str) -> None:
    extra = {"type": "LOHA"} if name == "peft" else {}
    problems = refused(recipe(place, {"name": name, **extra}, "t5"), tmp_path)
    assert "encoder-decoder" in problems[0].given and problems[0].where == "model"


def test_problems_come_together(place: Path, tmp_path: Path) -> None:
    values = recipe(place, {"name": "lora", "target_modules": ["q_lin", "v_lin", "fc1"]}, max_tokens=65)
    problems = refused(values, tmp_path)
    assert [problem.where for problem in problems] == 3 * ["method.target_modules"] + ["train.max_tokens"]


WITHOUT = """
import importlib.abc, importlib.util, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {absent!r} else find_spec(name, package)
)
from reglaj.cli import main
sys.exit(main({arguments!r}))
"""


def without(absent: set[str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line on a machine where these packages are not installed."""
    code = WITHOUT.format(absent=absent, arguments=list(arguments))
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def write_recipe(values: dict[str, Any], folder: Path) -> str:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return "recipe.yaml"


@pytest.mark.parametrize("verb", ["check", "train"])
def test_four_bits_without_their_package(place: Path, tmp_path: Path, verb: str) -> None:
    file = write_recipe(recipe(place, {"name": "qlora", "rank": 4}), tmp_path)
    done = without({"bitsandbytes"}, tmp_path, verb, file, "--json")
    assert done.returncode == 4, done.stderr  # the recipe is right, the machine lacks something
    (problem,) = json.loads(done.stdout)["error"]["problems"]
    assert problem["where"] == "method.name" and "bitsandbytes is not installed" in problem["given"]
    assert "lora" in problem["allowed"] and problem["why"] and "pip install" in problem["remedy"]
    assert not (tmp_path / "runs").exists()


def test_everything_else_does_without_that_package(place: Path, tmp_path: Path) -> None:
    file = write_recipe(recipe(place, {"name": "lora", "rank": 4}, max_steps=2), tmp_path)
    done = without({"bitsandbytes"}, tmp_path, "train", file, "--json")
    assert done.returncode == 0, done.stderr


def cli(arguments: list[str], capsys: Any) -> tuple[int, str]:
    from reglaj.cli import main

    capsys.readouterr()
    return main(arguments), capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"name": "lora", "target_modules": ["q_lin"]}, ["'q_lin' matches no linear layer", "did you mean 'query'?"]),
        ({"name": "lora", "rank": 100}, ["method.rank: rank 100", "1 to 32"]),
        ({"name": "prompt", "num_virtual_tokens": 100}, ["method.num_virtual_tokens", "100"]),
        ({"name": "lore"}, ["unknown method 'lore'", "did you mean 'lora'?"]),
        ({"name": "lora", "rnak": 4}, ["rnak", "did you mean 'rank'?"]),
        ({"name": "adapter", "bottleneck_dim": 1000}, ["method.bottleneck_dim", "1 to 32"]),
    ],
)
@pytest.mark.parametrize("verb", ["check", "train"])
def test_the_command_line_ends_with_two_and_all_four_parts(
    place: Path, tmp_path: Path, capsys: Any, monkeypatch: Any, verb: str, method: dict[str, Any], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = cli([verb, write_recipe(recipe(place, method), tmp_path)], capsys)
    assert code == 2
    for word in (*words, " allowed ", " why ", " do "):
        assert word in " ".join(told.split()), told
    assert not (tmp_path / "runs").exists()


@pytest.fixture(scope="module")
def base_run(place: Path) -> reglaj.Run:
    values = recipe_for(place / "bert", place / "rows.jsonl", train={"max_steps": 2})
    return reglaj.train(values, runs=place / "runs")


def relabelled(rows: Path, changes: dict[str, str | None], target: Path) -> Path:
    """A copy with some labels renamed, or with None left out."""
    with target.open("w", encoding="utf-8") as file:
        for line in rows.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            label = changes.get(row["label"], row["label"])
            if label is not None:
                file.write(json.dumps(row | {"label": label, "text": row["text"] + " again"}) + "\n")
    return target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fees": "charges"}, ["'charges'", "'fees'"]),
        ({"fees": None}, ["'fees'"]),
    ],
)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_labels_that_changed_since_the_base_run(
    place: Path, tmp_path: Path, base_run: reglaj.Run, changes: Any, words: list[str], method: str
) -> None:
    """Going on from a finished run with other labels: said before training, with what would work."""
    rows = relabelled(place / "rows.jsonl", changes, tmp_path / "rows.jsonl")
    (problem,) = refused(recipe_for(base_run.path / "model", rows, method={"name": method}), tmp_path)
    assert problem.where == "model" and base_run.path.name in problem.given
    for word in words:
        assert word in problem.given


def test_what_is_proposed_for_changed_labels_works(place: Path, tmp_path: Path, base_run: reglaj.Run) -> None:
    import shutil

    rows = relabelled(place / "rows.jsonl", {}, tmp_path / "same.jsonl")
    quick = {"max_steps": 2}
    assert reglaj.train(recipe_for(base_run.path / "model", rows, train=quick), runs=tmp_path / "runs")
    other = relabelled(place / "rows.jsonl", {"fees": "charges"}, tmp_path / "other.jsonl")
    shutil.copytree(base_run.path / "model", tmp_path / "weights")
    (tmp_path / "weights" / "task.json").unlink()
    assert reglaj.train(recipe_for(tmp_path / "weights", other, train=quick), runs=tmp_path / "runs")
    assert reglaj.train(recipe_for(place / "bert", other, train=quick), runs=tmp_path / "runs")
