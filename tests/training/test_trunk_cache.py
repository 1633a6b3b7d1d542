"""Frozen layers run once: the same training, whatever becomes of the files; and only where it is right and pays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.deep import write_deep_model
from tests.tiny import recipe_for, write_rows
from tests.torture.disk import small_disk
from tests.training import chat_harness, harness

import reglaj
from reglaj.core.console import Console
from reglaj.core.errors import EnvironmentFault
from reglaj.core.kept_sets import MANIFEST
from reglaj.core.run_listing import STATES, list_runs
from reglaj.core.runs import read_manifest
from reglaj.core.signals import Stopped
from reglaj.data.batching import micro_batches
from reglaj.pipelines.assemble import Assembled
from reglaj.training.engine import go_on_with
from reglaj.training.fit import Supervision, build_step, plan_for
from reglaj.training.saving import CheckpointWriter
from reglaj.training.state_files import FILE, write_states
from reglaj.training.trunk_cache import attach_states

UPPER = {"name": "lora", "rank": 4, "layers": 1}
PROBE = {"name": "linear-probe"}
ADAPTER, FREEZE = {"name": "adapter", "bottleneck_dim": 4, "layers": 1}, {"name": "freeze", "layers": 1}
WORKS = [("bert", UPPER), ("distilbert", UPPER), ("electra", UPPER), ("llama", UPPER), ("qwen2", UPPER),
         ("gpt2", UPPER), ("bert", PROBE), ("electra", PROBE), ("bert", ADAPTER), ("llama", ADAPTER),
         ("bert", FREEZE), ("llama", FREEZE)]  # fmt: skip
IDS = [f"{family}-{method['name']}" for family, method in WORKS]


class Said(Console):
    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += text + "\n"

    warn = say


FAMILIES = ("bert", "distilbert", "electra", "llama", "qwen2", "gpt2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_deep_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


class Side:
    """One training, with kept states where `runs` is given."""

    def __init__(
        self, folder: Path, family: str, method: dict[str, Any], runs: Path | None, said: Console, **train: Any
    ) -> None:
        is_chat = family in ("llama", "qwen2", "gpt2")
        room: Any = chat_harness if is_chat else harness
        settings = {"precision": "float32", "batch_size": 8, "epochs": 8, **train}
        self.assembled: Assembled = self._assembled(room, folder, method, settings)
        self.learner, self.config = self.assembled.learner, self.assembled.recipe.train
        rows: Any = chat_harness.Rows(24) if is_chat else harness.some_rows(24)
        self.supervision, self.encoded = room.supervise(self.assembled, rows)
        if runs is not None:
            self.attach(runs, said)

    @staticmethod
    def _assembled(room: Any, folder: Path, method: dict[str, Any], settings: dict[str, Any]) -> Assembled:
        if room is harness:
            return harness.learner_for(folder, method, **settings)
        from reglaj.models.inspect import inspect_model
        from reglaj.pipelines.assemble import assemble
        from reglaj.pipelines.recipe import load_recipe
        from reglaj.tasks.chat import Chat

        train = {"learning_rate": 3e-3, "max_tokens": 256, "device": "cpu", "model_dropout": 0.0, **settings}
        sources = {"sources": [{"path": "none.jsonl"}]}
        recipe = {"task": "chat", "model": str(folder), "data": sources, "method": method, "train": train}
        return assemble(load_recipe(recipe), inspect_model(str(folder), folder=Path()), Chat())

    def attach(self, runs: Path, said: Console) -> None:
        task, learner = self.assembled.task, self.learner
        rows = attach_states(learner, (self.encoded.rows, self.encoded.rows), self.config, runs, said)
        encoded = self.encoded = replace(self.encoded, rows=rows[0])
        self.supervision: Supervision[Any] = replace(
            self.supervision,
            rows=encoded.rows,
            load=lambda numbers: task.batch(encoded, numbers, "cpu"),
            measure=lambda: task.validate(learner, encoded),
        )

    @property
    def decision(self) -> str:
        return self.learner.engine.trunk_cache

    def gradients(self) -> tuple[float, dict[str, torch.Tensor]]:
        """Of one step over all rows, after B was given something to show."""
        for key, parameter in self.learner.named_parameters().items():
            if "lora_B" in key:
                with torch.no_grad():
                    parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        step = build_step(self.learner, self.supervision, self.config)
        self.learner.train()
        loss = step.accumulate([self.supervision.load(group) for group in self._groups(range(24))]).item()
        gradients = {key: p.grad.clone() for key, p in self.learner.named_parameters().items()}
        step.optimizer.zero_grad()
        return loss, gradients

    def losses(self, steps: int) -> list[float]:
        """Of that many optimizer steps, and the validation loss at the end."""
        step, plan = build_step(self.learner, self.supervision, self.config), plan_for(self.config, self.encoded.rows)
        self.learner.train()
        losses = [
            step(number, [self.supervision.load(group) for group in self._groups(plan.rows(number))]).loss
            for number in range(1, steps + 1)
        ]
        return [*losses, self.supervision.measure()["validation_loss"]]

    def _groups(self, rows: Any) -> list[list[int]]:
        is_padded = self.learner.engine.is_padded
        return micro_batches(list(rows), self.encoded.rows.lengths, 300, is_padded=is_padded)


@pytest.mark.parametrize(("family", "method"), WORKS, ids=IDS)
def test_steps_with_kept_states_are_the_steps_without(folders, tmp_path, family, method):
    said = Said()
    kept, plain = (Side(folders[family], family, method, runs, said) for runs in (tmp_path, None))
    assert kept.decision.startswith("on: ") and kept.encoded.rows.states is not None, kept.decision
    assert f"  trunk cache {kept.decision}\n" == said.text
    (loss, found), (expected_loss, expected) = kept.gradients(), plain.gradients()
    assert abs(loss - expected_loss) < 1e-5 and found.keys() == expected.keys() and found
    for key, gradient in expected.items():
        assert (found[key] - gradient).abs().max() < 1e-5, key
    losses, plain_losses = kept.losses(20), plain.losses(20)
    assert np.abs(np.array(losses) - np.array(plain_losses)).max() < 1e-4
    assert min(losses) < losses[0] - 0.01, "something was learnt"


def test_gradient_checkpointing_meets_the_kept_states_again(folders, tmp_path):
    kept, plain = (Side(folders["llama"], "llama", UPPER | {"layers": 2}, runs, Said()) for runs in (tmp_path, None))
    passes = []
    for number, layer in enumerate(kept.learner.backbone.base_model.layers):
        layer.mlp.register_forward_pre_hook(lambda *_, number=number: passes.append(number))
    kept.learner.checkpoint_gradients()
    (loss, found), (expected_loss, expected) = kept.gradients(), plain.gradients()
    assert set(passes) == {2, 3} and passes.count(2) == 2 * len(kept._groups(range(24))), "each is computed again"
    assert abs(loss - expected_loss) < 1e-5
    assert all((found[key] - gradient).abs().max() < 1e-5 for key, gradient in expected.items())


def test_the_probe_keeps_one_vector_a_text_and_runs_no_layer(folders, tmp_path):
    side = Side(folders["bert"], "bert", PROBE, tmp_path, Said())
    assert side.encoded.rows.states.values.shape == (24, 32)
    side.learner.backbone.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    side.losses(3)


def test_rows_that_break_a_step_are_named_with_kept_states_too(folders, tmp_path):
    for method in (UPPER, PROBE):
        side = Side(folders["bert"], "bert", method, tmp_path, Said())
        whole = side.supervision.load([3, 0, 5])
        singles = side.assembled.task.cut_rows(whole)
        with side.learner.evaluating():
            apart = torch.cat([side.supervision.forward(single) for single in singles])
            assert torch.allclose(apart, side.supervision.forward(whole), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "train", "reason"),
    [
        ({"name": "full"}, {}, "the lowest layer learns"),
        ({"name": "lora", "rank": 4}, {}, "the lowest layer learns"),
        (UPPER, {"trunk_cache": "off"}, "train.trunk_cache is off"),
        (UPPER, {"epochs": 1}, "1.0 passes over the rows are planned"),
        (UPPER, {"epochs": 8, "max_steps": 3}, "1.0 passes over the rows are planned"),
        (UPPER, {"trunk_cache_gb": 1e-5}, "train.trunk_cache_gb allows 1e-05"),
        (UPPER, {"model_dropout": 0.1}, "train.model_dropout=0 would allow it"),
    ],
)
def test_where_there_is_none_and_why(folders, tmp_path, method, train, reason):
    said = Said()
    side = Side(folders["bert"], "bert", method, tmp_path, said, **train)
    assert side.decision.startswith("off: ") and reason in side.decision
    assert side.encoded.rows.states is None and not (tmp_path / ".cache").exists()
    assert said.text == ("" if reason == "the lowest layer learns" else f"  trunk cache {side.decision}\n")


def test_more_evaluations_make_it_pay(folders, tmp_path):
    side = Side(folders["bert"], "bert", UPPER, tmp_path, Said(), epochs=1, evaluate_every=1)
    assert side.decision.startswith("on: the lower 3 of 4 layers run once, not 2.0 times")


def test_a_probe_needs_no_silence_of_dropout(folders, tmp_path):
    assert Side(folders["bert"], "bert", PROBE, tmp_path, Said(), model_dropout=0.1).decision.startswith("on")


def sets_in(runs: Path) -> list[Path]:
    return sorted((runs / STATES).iterdir())


def test_a_second_training_finds_what_the_first_has_kept(folders, tmp_path):
    Side(folders["bert"], "bert", UPPER, tmp_path, Said())
    (kept,) = sets_in(tmp_path)
    before = (kept / FILE).stat().st_mtime_ns
    other = Side(folders["bert"], "bert", UPPER | {"rank": 8}, tmp_path, Said(), learning_rate=3e-3)
    assert sets_in(tmp_path) == [kept] and (kept / FILE).stat().st_mtime_ns == before
    assert other.encoded.rows.states is not None
    Side(folders["bert"], "bert", UPPER | {"layers": 2}, tmp_path, Said())
    Side(folders["bert"], "bert", UPPER, tmp_path, Said(), precision="bfloat16")
    assert len(sets_in(tmp_path)) == 3, "other layers and another precision are other states"


def _flip(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)


def _rewrite(folder: Path, **facts: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | facts))


DAMAGES = {
    "flipped": (_flip, "was changed"),
    "cut": (lambda folder: os.truncate(folder / FILE, 100), "has 100 bytes instead of"),
    "longer": (lambda folder: os.truncate(folder / FILE, 1 << 20), "has 1,048,576 bytes instead of"),
    "without states": (lambda folder: (folder / FILE).unlink(), "cannot be read"),
    "without manifest": (lambda folder: (folder / MANIFEST).unlink(), "manifest.json cannot be read"),
    "no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), "manifest.json cannot be read"),
    "a list": (lambda folder: (folder / MANIFEST).write_text("[]"), "manifest.json cannot be read"),
    "of other rows": (lambda folder: _rewrite(folder, key="0" * 32), "of other rows or another version"),
    "of another kind": (lambda folder: _rewrite(folder, dtype="int3"), "unknown kind"),
    "a file": (lambda folder: [shutil.rmtree(folder), folder.write_text("")], "manifest.json cannot be read"),
}


@pytest.fixture(scope="module")
def kept(folders, tmp_path_factory) -> Path:
    """A runs folder with the states of one training."""
    runs = tmp_path_factory.mktemp("kept")
    Side(folders["bert"], "bert", UPPER, runs, Said())
    return runs


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_states_are_thrown_away_and_made_anew(folders, kept, tmp_path, damage):
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    (folder,) = sets_in(tmp_path)
    expected, said = (folder / FILE).read_bytes(), Said()
    act, reason = DAMAGES[damage]
    act(folder)
    side = Side(folders["bert"], "bert", UPPER, tmp_path, said)
    assert side.decision.startswith("on")
    assert "are thrown away and made anew" in said.text and reason in said.text
    assert sets_in(tmp_path) == [folder]
    assert (folder / FILE).read_bytes() == expected, "bitwise the same once more"


def test_a_full_disk_is_told_of_and_the_training_goes_on_without(folders, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as refusal:
        if refusal:
            pytest.skip(refusal)
        said = Said()
        side = Side(folders["bert"], "bert", UPPER, tmp_path / "disk", said)
        assert side.decision == "off: the states would take more than half of what is free on the disk"
        assert f"no trunk cache: {side.decision[5:]}; the training goes on without" in said.text
        assert side.learner.cut is None and not (tmp_path / "disk" / ".cache").exists()
        side.losses(2)


def test_a_disk_without_room_leaves_no_half_file(tmp_path):
    with small_disk(tmp_path / "disk", "64k") as refusal:
        if refusal:
            pytest.skip(refusal)
        made = []

        def fill(add: Any) -> None:
            for number in range(10):
                made.append(number)
                add(torch.zeros(100, 32))

        with pytest.raises(EnvironmentFault, match="No space left on device"):
            write_states(tmp_path / "disk" / STATES / "key", "key", (1000, 32), {}, fill)
        assert sets_in(tmp_path / "disk") == [] and made == [0], "told before the work is done"


def test_a_file_where_the_folder_should_be_is_no_fault(folders, tmp_path):
    (tmp_path / ".cache").write_text("mine\n")
    said = Said()
    side = Side(folders["bert"], "bert", UPPER, tmp_path, said)
    assert side.decision.startswith("off: the states cannot be written") and "no trunk cache" in said.text
    assert (tmp_path / ".cache").read_text() == "mine\n"


def test_the_oldest_make_room_and_what_a_killed_training_left_goes(folders, tmp_path):
    for layer in (1, 2):
        Side(folders["bert"], "bert", UPPER | {"layers": layer}, tmp_path, Said())
    first, second = sets_in(tmp_path)
    size = sum(file.stat().st_size for file in first.iterdir())
    os.utime(second / MANIFEST, (1, 1))
    left = tmp_path / STATES / f".{'0' * 32}.999999999.01234567.tmp"
    left.mkdir()
    said = Said()
    Side(folders["bert"], "bert", UPPER | {"layers": 3}, tmp_path, said, trunk_cache_gb=2.5 * size / 1e9)
    assert first in sets_in(tmp_path) and second not in sets_in(tmp_path) and len(sets_in(tmp_path)) == 2
    assert "1 sets of states of earlier trainings make room" in said.text and not left.exists()


class Impatient(Said):
    """Somebody who presses Ctrl-C in the middle of it."""

    @contextlib.contextmanager
    def progress(self, description: str, *_: Any, **__: Any) -> Iterator[Any]:
        def advance(count: int) -> None:
            if description == "frozen layers":
                raise KeyboardInterrupt

        yield advance


def test_filling_that_is_interrupted_leaves_nothing(folders, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Side(folders["bert"], "bert", UPPER, tmp_path, Impatient())
    assert sets_in(tmp_path) == []
    assert Side(folders["bert"], "bert", UPPER, tmp_path, Said()).decision.startswith("on")


def test_a_run_keeps_to_what_it_was_begun_with(folders, tmp_path):
    engine = Side(folders["bert"], "bert", UPPER, tmp_path, Said()).learner.engine
    side = Side(folders["bert"], "bert", UPPER, None, Said())
    side.learner.engine, _ = go_on_with(side.learner.engine, engine.facts() | {"trunk_cache": "off: the disk was full"})
    side.attach(tmp_path, Said())
    assert side.decision == "off: the disk was full" and side.encoded.rows.states is None
    side = Side(folders["bert"], "bert", UPPER, None, Said())
    side.learner.engine, _ = go_on_with(side.learner.engine, engine.facts())
    shutil.rmtree(tmp_path / ".cache")
    (tmp_path / ".cache").write_text("")
    said = Said()
    side.attach(tmp_path, said)
    assert side.decision.startswith("off") and "the last digits may differ" in said.text
    # What is so on this start stays so when the engine of the checkpoint is taken over.
    assert go_on_with(side.learner.engine, engine.facts())[0].trunk_cache == side.decision


@pytest.fixture
def recipe(folders, tmp_path) -> dict[str, Any]:
    train = {"epochs": 3, "checkpoint_every": 5, "model_dropout": 0.0}
    return recipe_for(folders["bert"], write_rows(tmp_path / "rows.jsonl", 120), method=UPPER, train=train)


@pytest.mark.parametrize("damage", ["none", "flipped", "gone"])
def test_a_stopped_training_ends_with_bitwise_the_same_weights(recipe, tmp_path, monkeypatch, damage):
    runs = tmp_path / "runs"
    calm = reglaj.train(recipe, runs=tmp_path / "calm")
    submit = CheckpointWriter.submit

    def stopping(self: CheckpointWriter, checkpoint: Any) -> None:
        submit(self, checkpoint)
        if checkpoint.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(CheckpointWriter, "submit", stopping)
        reglaj.train(recipe, runs=runs)
    (path,) = (run.path for run in list_runs(runs))
    assert read_manifest(path)["engine"]["trunk_cache"].startswith("on: the lower 3 of 4 layers")
    sets = sets_in(runs)
    assert len(sets) == 2, "training and validation rows"
    if damage == "gone":
        shutil.rmtree(runs / ".cache")
    elif damage == "flipped":
        _flip(sets[0])
    again = reglaj.train(recipe, runs=runs)
    assert again.report["training"]["resumed_at"] and again.path == path
    assert again.report["weights_sha256"] == calm.report["weights_sha256"]
    assert again.report["engine"] == calm.report["engine"] and sets_in(runs) == sets
