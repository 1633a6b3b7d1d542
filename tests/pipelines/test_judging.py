"""Slices and the gate from recipe to exit code, on tiny models."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.tiny import recipe_for, write_model, write_rows
from tests.tiny_chat import write_chat_model

import reglaj
from reglaj.cli import main
from reglaj.core.config import dump_yaml
from reglaj.core.errors import UserError
from reglaj.core.run_listing import list_runs
from reglaj.core.runs import read_manifest
from reglaj.pipelines.check import check

SLICES = ["length", "language", "region", "score"]
GATE = {"accuracy": ">= 0.01", "worst_slice.recall": ">= 0.99", "slice.region.south.accuracy": ">= 0.01"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of three regions, in one of which the labels mean something else."""
    folder, chance = tmp_path_factory.mktemp("judging"), random.Random(1)
    write_model(folder / "model")
    rows = [json.loads(line) for line in write_rows(folder / "plain.jsonl", 400).read_text().splitlines()]
    for row in rows:
        row |= {"region": chance.choice(["north", "south", "east", "east"]), "score": round(chance.random() * 10, 3)}
        if row["region"] == "south":
            row["label"] = {"cards": "fees", "fees": "transfers", "transfers": "cards"}[row["label"]]
    with (folder / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    recipe = recipe_for(folder / "model", folder / "rows.jsonl", evaluate={"slices": SLICES, "gate": GATE})
    recipe["data"]["split"] = {"test": 0.4}
    (folder / "recipe.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> reglaj.Run:
    return reglaj.train(place / "recipe.yaml", runs=place / "runs")


def test_every_slice_holds_every_test_row_once(run: reglaj.Run) -> None:
    found, rows = run.report["slices"], run.report["data"]["test"]
    assert list(found["by"]) == SLICES
    for one in found["by"].values():
        assert sum(group["rows"] for group in one["groups"]) == rows
        right = sum(group["figures"]["accuracy"]["value"] * group["rows"] for group in one["groups"])
        assert right / rows == pytest.approx(run.report["test"]["accuracy"]["value"])
    assert found["by"]["length"]["groups"][0]["group"].endswith("words")
    assert {group["group"] for group in found["by"]["region"]["groups"]} == {"north", "south", "east"}
    assert len(found["by"]["score"]["groups"]) == 4 == len(found["by"]["score"]["edges"]) + 1


def test_the_planted_group_is_the_worst(run: reglaj.Run) -> None:
    worst = run.report["slices"]["worst"]["accuracy"]
    assert (worst["slice"], worst["group"]) == ("region", "south")
    assert worst["is_shown"] and worst["difference"]["high"] < 0


def test_ranges_are_those_of_the_rows_that_may_be_looked_at(run: reglaj.Run, place: Path) -> None:
    import numpy as np

    from reglaj.data.examples import load_prepared

    data = load_prepared(place / "runs" / ".data" / run.report["data"]["key"])
    assert data is not None and data.train().extras == ["region", "score"]
    seen = [float(cell) for part in (data.train(), data.validation()) for cell in part.extra("score")]
    edges = run.report["slices"]["by"]["score"]["edges"]
    assert edges == pytest.approx(np.quantile(seen, [0.25, 0.5, 0.75], method="inverted_cdf"), rel=1e-3)


def test_a_failed_gate_marks_the_run_everywhere(run: reglaj.Run, place: Path) -> None:
    assert [rule["passed"] for rule in run.report["gate"]["rules"]] == [True, False, True]
    assert run.report["gate"]["rules"][1]["group"] == "south" and not run.report["gate"]["passed"]
    manifest = read_manifest(run.path)
    assert manifest["status"] == "finished" and manifest["gate"]["passed"] is False
    assert "worst_slice.recall >= 0.99 fails" in manifest["gate"]["failed"][0]
    assert [one.gate for one in list_runs(place / "runs")] == ["failed"]
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "The gate failed: 1 of 3 rules" in page and 'id="slices"' in page and 'id="gate"' in page
    card = (run.path / "README.md").read_text(encoding="utf-8")
    assert "Gate: **failed**." in card and "region = south" in card


def test_the_same_command_says_no_again_and_so_does_evaluate(run, place, capsys, monkeypatch) -> None:
    monkeypatch.chdir(place)
    for command in (["train", "recipe.yaml"], ["evaluate", run.path.name]):
        assert main([*command, "--json"]) == 3
        document = json.loads(capsys.readouterr().out)
        assert document["gate"] == run.report["gate"] and document["slices"] == run.report["slices"]
    assert main(["train", "recipe.yaml"]) == 3
    told = capsys.readouterr().out
    assert "gate FAILED:" in told and "Worst by accuracy: region = south" in told
    assert "This test set has been opened once" in told
    assert main(["evaluate", run.path.name]) == 3
    assert "opened 3 times: a choice made after the first look" in capsys.readouterr().out
    assert main(["runs"]) == 0
    assert "gate failed" in capsys.readouterr().out


def test_a_file_is_judged_by_its_own_columns_and_the_ranges_of_the_run(run, place, tmp_path) -> None:
    rows = [json.loads(line) for line in (place / "rows.jsonl").read_text().splitlines()]
    file = tmp_path / "north.jsonl"
    with file.open("w") as out:
        out.writelines(json.dumps(row | {"score": 3}) + "\n" for row in rows if row["region"] == "north")
    found = reglaj.evaluate(run.path, data=file)
    assert [group["group"] for group in found["slices"]["by"]["region"]["groups"]] == ["north"]
    assert found["slices"]["by"]["score"]["edges"] == run.report["slices"]["by"]["score"]["edges"]
    assert len(found["slices"]["by"]["score"]["groups"]) == 1
    assert "no test row is in it" in found["gate"]["rules"][2]["told"]
    with file.open("w") as out:
        out.writelines(json.dumps({"text": row["text"], "label": row["label"], "regio": "x"}) + "\n" for row in rows)
    with pytest.raises(UserError, match="no column 'region'") as raised:
        reglaj.evaluate(run.path, data=file)
    assert "did you mean 'regio'?" in str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slices": ["regio"]}, "did you mean 'region'?"),
        ({"slices": ["lenght"]}, "did you mean 'length'?"),
        ({"slices": ["region"], "gate": {"slice.region.sout.recall": ">= 0.1"}}, "did you mean 'south'?"),
        ({"slices": ["score"], "gate": {"slice.score.up to 3.recall": ">= 0.1"}}, "score has no group"),
    ],
)
def test_what_is_not_there_is_refused_before_training(
    change: dict[str, Any], words: str, place: Path, tmp_path
) -> None:
    recipe = recipe_for(place / "model", place / "rows.jsonl", evaluate=change)
    with pytest.raises(UserError) as raised:
        reglaj.train(recipe, runs=tmp_path / "runs")
    assert words in str(raised.value)
    assert list_runs(tmp_path / "runs") == []
    if "gate" not in change:
        with pytest.raises(UserError, match=r"evaluate\.slices"):
            check(recipe, runs=tmp_path / "runs")


def test_a_gate_that_passes_is_no_obstacle(place: Path, tmp_path, capsys) -> None:
    recipe = recipe_for(place / "model", place / "rows.jsonl", evaluate={"gate": {"log_loss": "<= 16"}})
    (tmp_path / "easy.yaml").write_text(dump_yaml(recipe), encoding="utf-8")
    assert main(["train", str(tmp_path / "easy.yaml"), "--runs", str(tmp_path / "runs"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gate"]["passed"] and "slices" not in report
    assert list_runs(tmp_path / "runs")[0].gate == "passed"


def test_a_chat_model_is_judged_on_losses_and_answers(tmp_path: Path) -> None:
    write_chat_model(tmp_path / "model")
    chance = random.Random(3)
    with (tmp_path / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(150):
            words = " ".join(chance.choices(["card", "money", "late", "help", "please"], k=chance.randint(1, 8)))
            kind = chance.choice(["plain", "odd"])
            answer = "your card is on its way" if kind == "plain" else "".join(chance.choices("qzxjk", k=12))
            file.write(json.dumps({"prompt": f"{words} {number}", "completion": answer, "kind": kind}) + "\n")
    recipe = {
        "name": "talk", "task": "chat", "model": str(tmp_path / "model"), "method": "lora",
        "data": {"sources": [{"path": str(tmp_path / "rows.jsonl")}], "split": {"test": 0.4}},
        "train": {"max_steps": 8, "batch_size": 8, "learning_rate": 1e-2},
        "evaluate": {
            "baselines": [], "generate_rows": 6, "max_new_tokens": 8, "bootstrap_samples": 100,
            "slices": ["kind", "length"], "gate": {"worst_slice.loss": "<= 1", "slice.kind.plain.loss": "<= 40"},
        },
    }  # fmt: skip
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    kinds = {group["group"]: group for group in run.report["slices"]["by"]["kind"]["groups"]}
    assert kinds["odd"]["figures"]["loss"]["value"] > kinds["plain"]["figures"]["loss"]["value"]
    assert sum(kind["figures"].get("chrf", {"rows": 0})["rows"] for kind in kinds.values()) == 6
    assert sum(kind["figures"]["loss"]["rows"] for kind in kinds.values()) == run.report["test"]["rows"]
    assert run.report["slices"]["worst"]["loss"]["group"] == "odd"
    assert "chrf" not in run.report["slices"]["worst"], "6 answers are too few to judge groups by"
    assert [rule["passed"] for rule in run.report["gate"]["rules"]] == [False, True]
    assert 'id="slices"' in (run.path / "report.html").read_text(encoding="utf-8")
