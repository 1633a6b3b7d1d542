"""The keys of a recipe that only conversations have: changing one changes data, weights or figures."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_chat import write_chat_model

import reglaj
from reglaj.core.errors import UserError

Look = Callable[[reglaj.Run], Any]


def weights(run: reglaj.Run) -> Any:
    return run.report["weights_sha256"]


def dropped(run: reglaj.Run) -> Any:
    return run.report["data"]["dropped"]


def figure(name: str) -> Look:
    return lambda run: run.report["test"][name]


def few_shot_loss(run: reglaj.Run) -> Any:
    return run.report["baselines"]["few_shot"]["loss"]["value"]


FEW_SHOT = {"evaluate.baselines": ["few_shot"], "evaluate.generate_rows": 0}
CHAT_CHANGES: dict[str, tuple[Any, Look, dict[str, Any]]] = {
    "train.on": ("last_answer", weights, {}),
    "data.too_long": ("truncate_prompt", dropped, {}),
    "evaluate.generate_rows": (2, figure("generated_rows"), {}),
    "evaluate.max_new_tokens": (1, figure("chrf"), {}),
    "evaluate.temperature": (1.5, figure("chrf"), {}),
    "evaluate.repetition_penalty": (3.0, figure("chrf"), {}),
    "evaluate.few_shot_examples": (1, few_shot_loss, FEW_SHOT),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two-turn conversations, one of them longer than the context."""
    folder = tmp_path_factory.mktemp("wiring-chat")
    chance = random.Random(0)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(40):
            words = chance.choices(["card", "money", "late", "help", "please", "transfer"], k=3)
            turns = [
                {"role": "user", "content": f"{' '.join(words)} {number}"},
                {"role": "assistant", "content": f"it is {words[0]}"},
                {"role": "user", "content": "and then?" + " please" * (200 if number == 7 else 0)},
                {"role": "assistant", "content": f"then {words[1]} and {words[2]}"},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return {
        "name": "chat",
        "task": "chat",
        "model": str(write_chat_model(folder / "model")),
        "data": {"sources": [{"path": str(folder / "rows.jsonl")}]},
        "method": {"name": "lora", "rank": 4},
        "train": {"max_steps": 3, "batch_size": 8, "learning_rate": 1e-2},
        "evaluate": {"baselines": [], "bootstrap_samples": 100, "generate_rows": 3, "max_new_tokens": 12},
    }


_done: dict[str, reglaj.Run] = {}


def run_with(recipe: dict[str, Any], runs: Path, overrides: dict[str, Any]) -> reglaj.Run:
    known = json.dumps(overrides, sort_keys=True)
    if known not in _done:
        dotted = {key.replace(".", "__"): value for key, value in overrides.items()}
        _done[known] = reglaj.train(recipe, runs=runs, **dotted)
    return _done[known]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("key", CHAT_CHANGES)
def test_changing_the_key_changes_what_it_should(key: str, recipe: dict[str, Any], runs: Path) -> None:
    value, look, context = CHAT_CHANGES[key]
    assert look(run_with(recipe, runs, context)) != look(run_with(recipe, runs, context | {key: value}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.class_weights", "balanced"),
        ("train.head_learning_rate", 1e-3),
        ("data.min_label_rows", 5),
        ("data.exclude_labels", ["x"]),
        ("data.contradictory_labels", "keep"),
    ],
)
def test_a_key_that_chat_does_not_read_is_refused(key: str, value: Any, recipe: dict[str, Any], runs: Path) -> None:
    with pytest.raises(UserError, match="does not read it"):
        run_with(recipe, runs, {key: value})


def test_early_stopping_watches_the_loss_and_nothing_else(recipe: dict[str, Any], runs: Path) -> None:
    with pytest.raises(UserError, match="validation_loss"):
        run_with(recipe, runs, {"train.early_stopping.metric": "validation_accuracy"})


def test_the_sum_of_the_ledger_goes_through_tokenising(recipe: dict[str, Any], runs: Path) -> None:
    data = run_with(recipe, runs, {}).report["data"]
    assert data["read"] == 40 == data["train"] + data["validation"] + data["test"] + sum(data["dropped"].values())
    assert data["dropped"] == {"too_long": 1}
    assert data["rendering"]["records"] == 39


def test_checkpointed_gradients_train_evaluate_and_answer_alike(recipe: dict[str, Any], runs: Path) -> None:
    plain, checked = (run_with(recipe, runs, {"train.gradient_checkpointing": on}) for on in (False, True))
    for name in ("loss", "chrf"):
        assert checked.report["test"][name]["value"] == pytest.approx(plain.report["test"][name]["value"], abs=1e-4)
    assert reglaj.load(checked.path).predict(["card 1"])[0]["prediction"]


def test_figures_are_about_answers_whatever_was_learnt(recipe: dict[str, Any], runs: Path) -> None:
    answers, everything = (run_with(recipe, runs, FEW_SHOT | {"train.on": on}) for on in ("answers", "all"))
    assert everything.report["test"]["answer_tokens"] == answers.report["test"]["answer_tokens"]
    assert weights(everything) != weights(answers)
    few, none = (everything.report["baselines"][name]["loss"]["value"] for name in ("few_shot", "untuned"))
    assert few != none
