"""What a run that was begun makes of a changed recipe, of foreign or damaged files, and of things that go missing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import recipe_for, write_rows

import reglaj
from reglaj.core.console import Console
from reglaj.core.errors import EnvironmentFault, UserError
from reglaj.core.files import canonical_hash
from reglaj.core.run_listing import list_runs
from reglaj.core.runs import read_manifest, write_manifest
from reglaj.core.signals import Stopped
from reglaj.training.checkpoints import MANIFEST, list_checkpoints
from reglaj.training.saving import CheckpointWriter


class Said(Console):
    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"

    warn = say


@pytest.fixture
def recipe(tiny_model, tiny_rows) -> dict[str, Any]:
    return recipe_for(tiny_model("bert"), tiny_rows, train={"epochs": 1, "checkpoint_every": 4})


@pytest.fixture
def begun(recipe, tmp_path) -> Path:
    """A run of 12 steps that stands after its eighth: what a kill leaves."""
    path = reglaj.train(recipe, runs=tmp_path / "runs", train__keep=9).path
    shutil.rmtree(list_checkpoints(path / "checkpoints")[-1])
    shutil.rmtree(path / "model")
    for name in ("report.json", "report.html", "README.md"):
        (path / name).unlink()
    write_manifest(path, read_manifest(path) | {"status": "running"})
    return path


def test_the_same_command_goes_on_and_other_checkpoint_keys_do_not_matter(begun, recipe):
    said = Said()
    run = reglaj.train(recipe, runs=begun.parent, console=said, train__checkpoint_every=1, train__checkpoint_minutes=9)
    assert run.path == begun and run.report["training"]["resumed_at"] == [8]
    assert "going on, for it was not finished" in said.text
    assert run.report["cost"]["checkpoint_seconds"] > 0 and 0 < run.report["cost"]["checkpoint_share"] < 1
    assert "Checkpoint share" in (run.path / "report.html").read_text()


def test_a_changed_recipe_or_changed_data_is_a_new_number_and_says_what_changed(begun, recipe, tmp_path):
    said = Said()
    second = reglaj.train(recipe, runs=begun.parent, console=said, train__epochs=2, evaluate__confidence=0.9)
    assert second.path.name == "tiny-002"
    assert "other than tiny-001 in evaluate.confidence (0.9, was 0.95); train.epochs (2, was 1)" in said.text
    said = Said()
    other = recipe | {"data": {"sources": [{"path": str(write_rows(tmp_path / "other.jsonl", 200, seed=5))}]}}
    third = reglaj.train(other, runs=begun.parent, console=said, train__epochs=2, evaluate__confidence=0.9)
    assert third.path.name == "tiny-003" and "other than tiny-002 in the data (key" in said.text
    fresh = reglaj.train(recipe, runs=begun.parent, fresh=True)
    assert fresh.path.name == "tiny-004" and fresh.report["training"]["resumed_at"] == []


def rewrite(checkpoint: Path, **facts: Any) -> None:
    """A manifest that is whole, but says something else."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["digest"]
    manifest |= facts
    text = json.dumps(manifest | {"digest": canonical_hash(manifest)}, ensure_ascii=False, indent=1) + "\n"
    (checkpoint / MANIFEST).write_text(text)


def test_a_checkpoint_of_another_version_or_recipe_is_named_and_nothing_is_lost(begun, recipe):
    newest = list_checkpoints(begun / "checkpoints")[-1]
    before = (newest / MANIFEST).read_text()
    for facts, error, words in (
        ({"format": 2, "reglaj": "9.9"}, EnvironmentFault, "format 2, written by reglaj 9.9"),
        ({"format": 1, "identity": "of another"}, UserError, "step-000008 is the checkpoint of another run"),
    ):
        rewrite(newest, **facts)
        with pytest.raises(error, match=words):
            reglaj.train(recipe, runs=begun.parent)
        assert [path.name for path in list_checkpoints(begun / "checkpoints")] == ["step-000004", "step-000008"]
        assert (begun / "metrics.jsonl").is_file()
    (newest / MANIFEST).write_text(before)
    assert reglaj.train(recipe, runs=begun.parent).report["training"]["resumed_at"] == [8]


def test_a_damaged_newest_checkpoint_is_set_aside_with_its_reason(begun, recipe, tmp_path):
    calm = reglaj.train(recipe, runs=tmp_path / "calm").report["weights_sha256"]
    file = list_checkpoints(begun / "checkpoints")[-1] / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    said = Said()
    run = reglaj.train(recipe, runs=begun.parent, console=said)
    assert run.report["training"]["resumed_at"] == [4] and run.report["weights_sha256"] == calm
    assert "step-000008 is damaged (weights.safetensors was changed)" in said.text
    reason = begun / "checkpoints" / "damaged-step-000008" / "reason.txt"
    assert reason.read_text() == "weights.safetensors was changed\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "recipe.yaml", "manifest.json", "checkpoints"])
def test_a_file_that_is_removed_under_the_run_comes_back(recipe, tmp_path, monkeypatch, name):
    submit, path = CheckpointWriter.submit, tmp_path / "runs" / "tiny-001"

    def removing(self: CheckpointWriter, checkpoint: Any) -> None:
        submit(self, checkpoint)
        self.settle()
        if checkpoint.step == 4:
            shutil.rmtree(path / name) if (path / name).is_dir() else (path / name).unlink()

    monkeypatch.setattr(CheckpointWriter, "submit", removing)
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    assert (path / name).exists() and run.report["training"]["steps"] == 12
    assert len((path / "metrics.jsonl").read_text().splitlines()) == 13
    assert reglaj.train(recipe, runs=tmp_path / "runs").was_finished


def test_a_run_folder_that_is_removed_under_the_run_is_an_environment_fault(recipe, tmp_path, monkeypatch):
    submit = CheckpointWriter.submit

    def removing(self: CheckpointWriter, checkpoint: Any) -> None:
        shutil.rmtree(tmp_path / "runs" / "tiny-001", ignore_errors=True)
        submit(self, checkpoint)

    monkeypatch.setattr(CheckpointWriter, "submit", removing)
    with pytest.raises(EnvironmentFault, match="cannot write"):
        reglaj.train(recipe, runs=tmp_path / "runs")
    monkeypatch.undo()
    assert reglaj.train(recipe, runs=tmp_path / "runs").report["training"]["steps"] == 12


def test_a_run_whose_data_is_gone_names_it_and_still_answers(recipe, tiny_rows, tmp_path):
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / ".data")
    with pytest.raises(UserError) as error:
        reglaj.evaluate(run.path)
    assert run.report["data"]["key"] in str(error.value) and str(tiny_rows) in str(error.value)
    assert reglaj.load(run.path).predict(["lost card"])[0]["prediction"]
    assert reglaj.evaluate(run.path, data=tiny_rows)["test"]["accuracy"]
    reglaj.prepare_data(run.path / "recipe.yaml", runs=tmp_path / "runs")
    assert reglaj.evaluate(run.path)["test"]["accuracy"] == run.report["test"]["accuracy"]


def test_data_that_went_away_between_two_looks_are_an_environment_fault(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("reglaj.pipelines.train.begin_run", _removing(tmp_path / "runs" / ".data"))
    with pytest.raises(EnvironmentFault, match=r"prepared data .* are gone"):
        reglaj.train(recipe, runs=tmp_path / "runs")
    monkeypatch.undo()
    assert reglaj.train(recipe, runs=tmp_path / "runs").report["training"]["steps"] == 12


def _removing(folder: Path) -> Any:
    from reglaj.core.runs import begin_run

    def begin(*arguments: Any, **keys: Any) -> Any:
        shutil.rmtree(folder)
        return begin_run(*arguments, **keys)

    return begin


def test_data_that_go_away_while_a_run_trains_are_an_environment_fault(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(CheckpointWriter, "submit", lambda self, checkpoint: shutil.rmtree(tmp_path / "runs" / ".data"))
    with pytest.raises(EnvironmentFault, match=r"openings\.jsonl|test\.parquet"):
        reglaj.train(recipe, runs=tmp_path / "runs", train__checkpoint_every=None)
    assert read_manifest(tmp_path / "runs" / "tiny-001")["status"] == "interrupted"


def test_memory_that_does_not_suffice_outside_of_a_pass_is_an_environment_fault(recipe, tmp_path, monkeypatch):
    def refused(*arguments: Any) -> Any:
        torch.empty(1 << 55)

    monkeypatch.setattr("reglaj.training.fit.build_optimizer", refused)
    with pytest.raises(EnvironmentFault, match="out of memory"):
        reglaj.train(recipe, runs=tmp_path / "runs")
    assert list_runs(tmp_path / "runs") == []
    monkeypatch.undo()
    assert reglaj.train(recipe, runs=tmp_path / "runs").path.name == "tiny-001"


def test_an_interrupt_behind_the_end_leaves_the_run_finished(recipe, tmp_path, monkeypatch):
    from reglaj.pipelines import train

    finish = train.finish_run

    def interrupted(*arguments: Any) -> None:
        finish(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "finish_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reglaj.train(recipe, runs=tmp_path / "runs")
    monkeypatch.undo()
    again = reglaj.train(recipe, runs=tmp_path / "runs")
    assert again.was_finished and again.report["test_openings"] == 1


def test_a_run_whose_manifest_was_removed_keeps_its_training_when_it_is_stopped(recipe, tmp_path, monkeypatch):
    submit, path = CheckpointWriter.submit, tmp_path / "runs" / "tiny-001"

    def stopping(self: CheckpointWriter, checkpoint: Any) -> None:
        submit(self, checkpoint)
        if checkpoint.step == 4:
            (path / "manifest.json").unlink()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    monkeypatch.setattr(CheckpointWriter, "submit", stopping)
    with pytest.raises(Stopped):
        reglaj.train(recipe, runs=tmp_path / "runs")
    monkeypatch.undo()
    again = reglaj.train(recipe, runs=tmp_path / "runs")
    assert again.path == path and again.report["training"]["resumed_at"] == [5]


def test_half_a_run_is_left_alone(recipe, tmp_path):
    half = tmp_path / "runs" / "tiny-001"
    half.mkdir(parents=True)
    (half / "metrics.jsonl").write_text("{}\n")
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    assert run.path.name == "tiny-002" and (half / "metrics.jsonl").read_text() == "{}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a read-only file system")
def test_a_read_only_file_system_is_named_and_still_read(recipe, tiny_rows, tmp_path):
    run = reglaj.train(recipe, runs=tmp_path / "runs")
    mounted = ["mount", "--bind", "-o", "ro", str(tmp_path / "runs"), str(tmp_path / "runs")]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(tmp_path / "runs")], check=True, capture_output=True)
        with pytest.raises(EnvironmentFault, match="cannot write"):
            reglaj.train(recipe, runs=tmp_path / "runs", train__epochs=2)
        with pytest.raises(EnvironmentFault, match="cannot write"):
            reglaj.evaluate(run.path)
        assert reglaj.load(run.path).predict(["lost card"])[0]["prediction"]
        assert reglaj.evaluate(run.path, data=tiny_rows)["test"]["accuracy"]
        assert [summary.status for summary in list_runs(tmp_path / "runs")] == ["finished"]
    finally:
        # A model that was read from there may still hold its file.
        subprocess.run(["umount", "--lazy", str(tmp_path / "runs")], check=True)
