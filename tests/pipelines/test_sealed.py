"""The sealed test: no row of it is read before the final evaluation, and what chooses has no way to it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.tiny import recipe_for, write_rows

import reglaj
from reglaj.core.errors import EnvironmentFault
from reglaj.core.runs import read_manifest
from reglaj.core.signals import Stopped
from reglaj.data.examples import OPENINGS, Examples, PreparedData, VisibleData, load_prepared
from reglaj.evaluation.report.words import openings_told
from reglaj.training.saving import CheckpointWriter


@pytest.fixture
def recipe(tiny_model, tmp_path):
    rows = [json.loads(line) for line in write_rows(tmp_path / "plain.jsonl", 120).read_text().splitlines()]
    with (tmp_path / "rows.jsonl").open("w") as file:
        file.writelines(json.dumps(row | {"region": "ab"[number % 2]}) + "\n" for number, row in enumerate(rows))
    settings = {"slices": ["length", "region"], "gate": {"slice.region.a.accuracy": ">= 0"}, "baselines": ["majority"]}
    return recipe_for(tiny_model("bert"), tmp_path / "rows.jsonl", evaluate=settings)


def sealed(recipe, folder: Path) -> tuple[PreparedData, Path]:
    """The prepared data, and the file of the test part that was taken away from it."""
    prepared = reglaj.prepare_data(recipe, runs=folder / "runs")
    data = load_prepared(Path(prepared["folder"]))
    assert data is not None
    hidden = folder / "hidden.parquet"
    shutil.move(data.folder / "test.parquet", hidden)
    return data, hidden


def test_training_goes_to_its_end_without_the_test_part(recipe, tmp_path):
    data, hidden = sealed(recipe, tmp_path)
    with pytest.raises(EnvironmentFault, match=r"test\.parquet cannot be read"):
        reglaj.train(recipe, runs=tmp_path / "runs")
    path = tmp_path / "runs" / "tiny-001"
    assert read_manifest(path)["status"] == "interrupted" and (path / "model" / "base.json").is_file()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line for line in lines if line["event"] == "evaluation"], "validation was measured all the same"
    shutil.move(hidden, data.folder / "test.parquet")
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    assert run.path == path and run.report["test_openings"] == 2, "an attempt to open it counts"
    other = reglaj.train(recipe, runs=tmp_path / "other")
    assert other.report["weights_sha256"] == run.report["weights_sha256"]
    assert other.report["test"] == run.report["test"] and other.report["slices"] == run.report["slices"]


def test_a_training_that_is_stopped_opens_nothing(recipe, tmp_path, monkeypatch):
    import signal

    sealed(recipe, tmp_path)

    def stop(self: CheckpointWriter, checkpoint: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(CheckpointWriter, "submit", stop)
    with pytest.raises(Stopped):
        reglaj.train(recipe, runs=tmp_path / "runs", train__checkpoint_every=2)
    assert not (tmp_path / "runs" / ".data" / OPENINGS).exists()


def test_what_chooses_is_handed_a_view_without_the_test_part(recipe, tmp_path, monkeypatch):
    from reglaj.tasks.classify import Classify

    handed = []
    evaluate = Classify.evaluate

    def look(self, evaluation, *more):
        handed.append(evaluation.data)
        return evaluate(self, evaluation, *more)

    monkeypatch.setattr(Classify, "evaluate", look)
    reglaj.train(recipe, runs=tmp_path / "runs")
    (view,) = handed
    assert type(view) is VisibleData and not hasattr(view, "open_test") and not hasattr(view, "folder")
    assert isinstance(view.train(), Examples) and len(view.validation()) > 0
    with pytest.raises(ValueError, match="sealed"):
        view._read("test")


def test_nothing_else_of_a_run_reads_the_test_part(recipe, tmp_path):
    """Preparing, showing, predicting: with the test part taken away all of them work."""
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    data = load_prepared(tmp_path / "runs" / ".data" / run.report["data"]["key"])
    assert data is not None
    (data.folder / "test.parquet").unlink()
    assert reglaj.prepare_data(recipe, runs=tmp_path / "runs", show=2)["shown"]
    assert reglaj.load(run.path).predict(["my card"])[0]["prediction"]
    assert reglaj.evaluate(run.path, data=tmp_path / "rows.jsonl")["test"]
    assert data.test_openings() == 1


def test_openings_are_told_with_what_they_mean():
    assert openings_told(1) == "This test set has been opened once: nothing can have been chosen on it."
    assert "opened 2 times: a choice made after the first look" in openings_told(2)
    assert "opened 4 times; a fresh one is due" in openings_told(4)
