"""Every verb once, as a user calls it: what it prints, and that `--json` is one document."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from tests.tiny import recipe_for

import reglaj as library
from reglaj.methods import METHODS


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model, tiny_rows) -> Path:
    """A folder with `recipe.yaml` and, in `runs/`, its finished run."""
    folder = tmp_path_factory.mktemp("trained")
    recipe = recipe_for(tiny_model("bert"), tiny_rows, evaluate={"baselines": ["majority"], "bootstrap_samples": 100})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    library.train(folder / "recipe.yaml", runs=folder / "runs")
    return folder


@pytest.fixture
def verb(reglaj, trained, monkeypatch):
    """Calls a verb in the folder of the finished run."""
    monkeypatch.chdir(trained)
    return reglaj


def test_new_writes_a_recipe_that_check_accepts(reglaj, tickets, tiny_model):
    outcome = reglaj("new", tickets, "--model", tiny_model("bert"), "-o", "my recipe.yaml")
    assert outcome.code == 0, outcome.err
    assert "`message` holds texts" in outcome.out and "reglaj train 'my recipe.yaml'" in outcome.out
    again = reglaj("new", tickets, "-o", "my recipe.yaml", "--json")
    assert again.code == 2 and "--force" in again.problems[0]["remedy"]
    forced = reglaj("new", tickets, "--model", tiny_model("bert"), "-o", "my recipe.yaml", "--force", "--json")
    assert forced.document["columns"] == {"text": "message", "label": "intent"}
    checked = reglaj("check", "my recipe.yaml", "--json")
    assert checked.code == 0, checked.err
    assert checked.document["forecast"]["is_rough"]


def test_new_says_how_to_choose(reglaj, tmp_path):
    file = tmp_path / "t.csv"
    rows = "".join(f"the message number {i},{'ab'[i % 2]},{'cd'[i % 2]}\n" for i in range(40))
    file.write_text("message,queue,priority\n" + rows, encoding="utf-8")
    outcome = reglaj("new", file)
    assert outcome.code == 2
    assert "--label queue" in outcome.err
    assert not (tmp_path / "recipe.yaml").exists()
    assert reglaj("new", file, "--label", "priority").code == 0
    chat = reglaj("new", file, "--column", "prompt=message", "--column", "completion=queue", "-o", "c.yaml", "--json")
    assert chat.code == 0 and chat.document["task"] == "chat"
    assert chat.document["columns"] == {"prompt": "message", "completion": "queue"}
    assert reglaj("new", file, "--column", "prompt", "-o", "d.yaml").code == 2


def test_check_reads_well_and_shows_all_problems(verb):
    outcome = verb("check", "recipe.yaml")
    assert outcome.code == 0
    assert "no problems found" in outcome.out and "cannot: peft" in outcome.out
    wrong = verb("check", "recipe.yaml", "train.epoch=1", "model=nowhere/", "--json")
    assert wrong.code == 2
    assert len(wrong.problems) == 2


def test_data_accounts_for_every_row(verb):
    document = verb("data", "recipe.yaml", "--json").document
    data = document["data"]
    assert data["read"] == data["train"] + data["validation"] + data["test"] + sum(data["dropped"].values())
    assert document["key"] in verb("data", "recipe.yaml").out


def test_train_prints_a_finished_run_again(verb):
    outcome = verb("train", "recipe.yaml")
    assert outcome.code == 0
    assert "majority" in outcome.out and "model minus it" in outcome.out
    assert "report.html" in outcome.out and "reglaj predict runs/tiny-001" in outcome.out
    document = verb("train", "recipe.yaml", "--json").document
    assert document["run"].endswith("runs/tiny-001")
    assert "difference" in document["baselines"]["majority"]["accuracy"]
    assert len(verb("runs", "--json").document) == 1


def test_evaluate_scores_again_and_on_a_new_file(verb, tiny_rows):
    report = json.loads((Path("runs") / "tiny-001" / "report.json").read_text(encoding="utf-8"))
    again = verb("evaluate", "tiny", "--json")
    assert again.code == 0, again.err
    assert again.document["test"]["accuracy"] == report["test"]["accuracy"]
    outcome = verb("evaluate", "tiny", "--data", tiny_rows)
    assert outcome.code == 0
    assert "240 test" in outcome.out and "report.html" not in outcome.out


def test_predict_answers_a_text(verb):
    outcome = verb("predict", "tiny", "lost card")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0] in {"cards", "fees", "transfers"}
    assert len(outcome.out.splitlines()) == 4
    (answer,) = verb("predict", "runs/tiny-001", "lost card", "--json").document
    assert answer["prediction"] == outcome.out.splitlines()[0]
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_predict_refuses_an_empty_text_and_a_text_with_output(verb):
    assert verb("predict", "tiny", "  ").code == 2
    assert verb("predict", "tiny", "lost card", "--output", "x.csv").code == 2
    assert verb("predict", "tiyn", "lost card").code == 2


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json"])
def test_predict_answers_a_file_in_order(verb, tmp_path, kind):
    texts = ["lost card", "", "late transfer, please"]
    source = tmp_path / "in.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
    target = tmp_path / f"out.{kind}"
    outcome = verb("predict", "tiny", "--input", source, "--output", target)
    assert outcome.code == 0, outcome.err
    assert outcome.out == f"{target}\n"
    assert "3 rows: 2 answered, 1 refused" in outcome.err
    answers = verb("predict", "tiny", "--input", source, "--output", target, "--json").document
    assert [answer.get("input", "") for answer in answers] == texts
    assert ["error" in answer for answer in answers] == [False, True, False]


def test_predict_prints_json_lines_without_an_output(verb, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "lost card"}\n{"text": "[red]late[/red]"}\n', encoding="utf-8")
    outcome = verb("predict", "tiny", "--input", source)
    assert [json.loads(line)["input"] for line in outcome.out.splitlines()] == ["lost card", "[red]late[/red]"]
    document = verb("predict", "tiny", "--input", source, "--json").document
    assert all("probabilities" in answer for answer in document)


@pytest.mark.parametrize(
    "given", ["cardul pierdut\n\nlate money\n", '{"text": "cardul pierdut"}\n{"text": ""}\n{"text": "late money"}\n']
)
def test_predict_reads_standard_input(verb, monkeypatch, given):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    document = verb("predict", "tiny", "--input", "-", "--json").document
    assert [answer["input"] for answer in document] == ["cardul pierdut", "", "late money"]


def test_runs_shows_the_headline(verb):
    outcome = verb("runs")
    assert "tiny-001" in outcome.out and "finished" in outcome.out and "accuracy 0." in outcome.out
    assert "no runs" in verb("runs", "--runs", "elsewhere").out


def test_methods_counts_on_a_model(verb, tiny_model):
    assert [method["name"] for method in verb("methods", "--json").document] == METHODS.names()
    out = verb("methods", tiny_model("bert")).out
    assert all(name in out for name in METHODS.names()) and "memory" in out and "kB" in out


def test_starters_are_listed_without_fetching(verb):
    listed = verb("starters", "--json").document
    assert {"minilm", "medical"} <= {starter["name"] for starter in listed}
    assert all(set(starter) == {"name", "kind", "licence", "source", "path"} for starter in listed)
    assert "starter:minilm" in verb("starters").out


def test_schema_is_the_same_in_both_forms(verb):
    assert json.loads(verb("schema").out) == verb("schema", "--json").document
