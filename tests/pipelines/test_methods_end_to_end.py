"""Runs of methods of each family from recipe to answers: what is learnt is saved, loaded, evaluated again and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.tiny import recipe_for, write_model, write_rows
from tests.tiny_chat import write_chat_model, write_conversations
from transformers import AutoModelForCausalLM, AutoTokenizer

import reglaj
from reglaj.methods import METHODS
from reglaj.models.inspect import inspect_model
from reglaj.pipelines.chat import before_and_after, open_chat
from reglaj.tasks import TASKS
from reglaj.training.config import TrainConfig
from reglaj.training.defaults import derive_training
from reglaj.training.learner import weights_sha256

VIRTUAL = [
    {"name": "prompt", "num_virtual_tokens": 6},
    {"name": "p-tuning", "num_virtual_tokens": 6},
    {"name": "prefix", "num_virtual_tokens": 6},
]
OTHERS = [{"name": "adapter"}, {"name": "ia3"}, {"name": "adalora"}]
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "repetition_penalty": 1.0}
TRAIN = {"max_steps": 12, "epochs": 20, "device": "cpu", "learning_rate": 3e-2}


def name_of(method: Any) -> str:
    return str(method["name"])


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classes")
    write_model(folder / "model")
    write_rows(folder / "rows.jsonl", 120)
    write_rows(folder / "other.jsonl", 30, seed=5)
    return folder


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talks")
    write_chat_model(folder / "model")
    write_conversations(folder / "rows.jsonl", 60)
    return folder


def by_transformers(model: Path, question: str) -> str:
    """What the base answers in plain transformers."""
    tokenizer, base = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    turns = [{"role": "user", "content": question}]
    given = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    whole = base.generate(**given, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(whole[0, given["input_ids"].shape[1] :], skip_special_tokens=True))


def talk_recipe(place: Path, method: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "talk",
        "task": "chat",
        "model": str(place / "model"),
        "data": {"sources": [{"path": str(place / "rows.jsonl")}]},
        "method": method,
        "train": {**TRAIN, "batch_size": 8},
        "evaluate": {"generate_rows": 2, "max_new_tokens": 8, "bootstrap_samples": 100, "few_shot_examples": 1},
    }


def same_figures(reported: dict[str, Any], again: dict[str, Any]) -> bool:
    keys = [key for key, value in reported.items() if isinstance(value, dict) and "value" in value]
    return bool(keys) and all(again[key]["value"] == pytest.approx(reported[key]["value"], rel=1e-5) for key in keys)


@pytest.mark.parametrize("method", [*VIRTUAL, *OTHERS], ids=name_of)
def test_a_classifier(classes: Path, method: dict[str, Any]) -> None:
    run = reglaj.train(recipe_for(classes / "model", classes / "rows.jsonl", method=method, train=TRAIN), runs=classes)
    assert run.report["training"]["steps"] == 12
    assert same_figures(run.report["test"], reglaj.evaluate(run.path)["test"]), "what was saved is what was evaluated"
    loaded = reglaj.load(run.path)
    assert weights_sha256(loaded._assembled.learner.trained()) == run.report["weights_sha256"]
    (answer,) = loaded.predict(["where is my card"])
    assert answer["prediction"] in {"cards", "fees", "transfers"}
    check_learnt(run, method)


def check_learnt(run: reglaj.Run, method: dict[str, Any]) -> None:
    """What the report and its page show, by what kind of method it is."""
    learnt = run.report.get("learnt", {})
    page, card = (run.path / "report.html").read_text("utf-8"), (run.path / "README.md").read_text("utf-8")
    kind = {"prompt": "virtual_tokens", "p-tuning": "virtual_tokens", "ia3": "updates", "adalora": "updates"}
    shown = kind.get(method["name"])
    assert (shown in learnt) if shown else not learnt
    assert ('id="learnt"' in page) == ("## What was learnt" in card) == bool(shown)
    if shown == "virtual_tokens":
        assert len(learnt["virtual_tokens"]) == method["num_virtual_tokens"]


@pytest.mark.parametrize("method", [*VIRTUAL, OTHERS[0]], ids=name_of)
def test_a_model_that_talks(talks: Path, method: dict[str, Any]) -> None:
    run = reglaj.train(talk_recipe(talks, method), runs=talks)
    base = run.report["baselines"]["untuned"]["loss"]["value"]
    assert run.report["test"]["loss"]["value"] < base, "it has learnt, and the untuned model stays what it was"
    assert same_figures(run.report["test"], reglaj.evaluate(run.path)["test"])
    question = "please help me with my card"
    before, after = before_and_after(run.path, question, **GREEDY)
    assert before == by_transformers(talks / "model", question) != after, "nothing learnt reaches the untuned model"
    with open_chat(run.path, **GREEDY) as chat:
        assert "".join(chat.answer(question)) == after
        assert "".join(chat.answer("and then"))
    (predicted,) = reglaj.load(run.path).predict([question])
    assert predicted["prediction"]
    check_learnt(run, method)


def test_the_one_learning_rate_of_a_probe_is_that_of_its_head(classes: Path) -> None:
    facts, task = inspect_model(str(classes / "model"), folder=classes), TASKS.get("classify").defaults
    given = TrainConfig.model_validate({"learning_rate": 0.2})

    def head(method: str, train: TrainConfig) -> float:
        section = METHODS.get(method).config_type()
        section = section.model_copy(update={"target_modules": ["query"]}) if method == "lora" else section
        return float(derive_training(train, section, facts, 100, task)["head_learning_rate"][0])

    assert head("linear-probe", given) == 0.2
    assert head("linear-probe", TrainConfig()) == 1e-2
    assert head("lora", given) == head("lora", TrainConfig()) != 0.2
