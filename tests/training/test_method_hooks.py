"""What a method may add to a training: a penalty, a hand on what has moved, tensors of its own in checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.training.harness import learner_for, some_rows, supervise
from tests.training.test_fit import Planted, breaks_at, lines, nan_for, same_weights
from torch import Tensor

from reglaj.core.console import SILENT
from reglaj.core.errors import EnvironmentFault
from reglaj.core.files import canonical_hash, sha256_file, write_json
from reglaj.data.batching import micro_batches
from reglaj.methods.base import Capabilities, Handle
from reglaj.pipelines.assemble import Assembled
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.fit import build_step, fit
from reglaj.training.guards import NonFiniteError
from reglaj.training.learner import Learner

WEIGHT = "encoder.layer.1.output.dense.weight"


class Shrinking(Handle):
    """One matrix learns; its size is punished, and what its gradients have been shrinks it after each step."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, "shrinking", Capabilities())
        model.requires_grad_(False)
        self.weight = dict(model.named_parameters())[WEIGHT].requires_grad_(True)
        self.seen = torch.zeros_like(self.weight)
        self.steps = torch.zeros(1, dtype=torch.int64)
        self.begun: list[int] = []
        self.called: list[int] = []
        self.strength = 0.01

    def switch(self, is_on: bool) -> None:
        raise NotImplementedError("no test asks for the base")

    def parameters(self) -> dict[str, list[tuple[str, torch.nn.Parameter]]]:
        return {"one": [(WEIGHT, self.weight)]}

    def save(self, folder: Path) -> None:
        save_file({"weight": self.weight.detach()}, folder / "weight.safetensors")

    def load(self, folder: Path) -> None:
        self.weight.data.copy_(load_file(folder / "weight.safetensors")["weight"])

    def begin(self, total_steps: int) -> None:
        self.begun.append(total_steps)

    def penalty(self) -> Tensor:
        return self.strength * self.weight.pow(2).sum()

    def after_step(self, step: int) -> None:
        assert self.weight.grad is not None, "the gradients are still there"
        self.called.append(step)
        with torch.no_grad():
            self.seen.lerp_(self.weight.grad.abs(), 0.2)
            self.steps += 1
            self.weight.mul_(1 - 0.1 * self.seen / (self.seen.max() + 1e-9) / self.steps.sqrt())

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen, "steps": self.steps}


def assembled_for(model: Path, **train: Any) -> Assembled:
    assembled = learner_for(model, "linear-probe", early_stopping={"metric": "validation_loss"}, **train)
    old = assembled.learner
    learner = Learner(old.backbone, Shrinking(old.backbone), old.head, old.facts, old.engine)
    return replace(assembled, learner=learner)


def train(model: Path, folder: Path, plant: Any = None, **settings: Any) -> tuple[Learner, Shrinking, Any]:
    assembled = assembled_for(model, **settings)
    supervision, encoded = supervise(assembled, some_rows(48))
    if plant:
        supervision = plant(assembled.learner, supervision, encoded)
    folder.mkdir(exist_ok=True)
    fitted = fit(assembled.learner, supervision, assembled.recipe.train, folder, SILENT, identity="me")
    handle: Any = assembled.learner.handle
    return assembled.learner, handle, fitted


def accumulated(model: Path, budget: int, strength: float = 0.01) -> tuple[int, float, Tensor]:
    assembled = assembled_for(model)
    handle: Any = assembled.learner.handle
    handle.strength = strength
    supervision, encoded = supervise(assembled, some_rows(24))
    step = build_step(assembled.learner, supervision, assembled.recipe.train)
    groups = micro_batches(range(24), encoded.rows.lengths, budget)
    loss = step.accumulate([supervision.load(group) for group in groups])
    return len(groups), loss.item(), handle.weight.grad.clone()


def test_the_penalty_counts_once_however_the_step_is_cut(tiny_model):
    model = tiny_model("bert")
    _, without, bare = accumulated(model, 10_000, strength=0.0)
    whole, loss, gradient = accumulated(model, 10_000)
    assert whole == 1
    for budget in (1, 40, 100):
        count, other_loss, other = accumulated(model, budget)
        assert count > 1
        assert other_loss == pytest.approx(loss, abs=1e-5)
        assert torch.allclose(other, gradient, atol=1e-5)
    weight = dict(assembled_for(model).learner.backbone.named_parameters())[WEIGHT].detach()
    assert loss - without == pytest.approx(0.01 * weight.pow(2).sum().item(), rel=1e-4), "it is in the reported loss"
    assert torch.allclose(gradient - bare, 0.02 * weight, atol=1e-5)


def test_one_of_several_processes_adds_it(tiny_model):
    class Second:
        is_first = False

    assembled = assembled_for(tiny_model("bert"))
    supervision, _ = supervise(assembled, some_rows(8))
    step = build_step(assembled.learner, supervision, assembled.recipe.train)
    batches = [supervision.load(list(range(8)))]
    totals = dict.fromkeys(step.objective.names, 8.0)
    first = step.accumulate(batches, totals).item()
    step.ranks = Second()  # type: ignore[assignment]
    assert first - step.accumulate(batches, totals).item() == pytest.approx(step.penalty().item(), rel=1e-4)


def test_it_begins_once_and_is_called_after_each_step(tiny_model, tmp_path):
    _, handle, fitted = train(tiny_model("bert"), tmp_path / "run")
    assert handle.begun == [fitted.steps] and handle.called == list(range(1, fitted.steps + 1))
    assert handle.seen.max() > 0


def test_a_step_that_is_left_out_is_not_told(tiny_model, tmp_path):
    _, handle, fitted = train(tiny_model("bert"), tmp_path / "run", plant=nan_for("row-7"), on_nonfinite="skip")
    skipped = {line["step"] for line in fitted.metrics if line["event"] == "skipped"}
    assert len(skipped) == 2 and handle.called == [n for n in range(1, fitted.steps + 1) if n not in skipped]


def test_a_penalty_that_is_not_finite_stops_the_training_and_is_named(tiny_model, tmp_path):
    def plant(learner: Learner, supervision: Any, encoded: Any) -> Any:
        learner.handle.strength = float("inf")  # type: ignore[attr-defined]
        return supervision

    with pytest.raises(NonFiniteError, match="the method's own penalty is not finite"):
        train(tiny_model("bert"), tmp_path / "run", plant)
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_a_training_that_broke_ends_bitwise_as_the_calm_one(tiny_model, tmp_path):
    settings = {"model_dropout": 0.2, "epochs": 4, "evaluate_every": 2, "learning_rate": 5e-3, "checkpoint_every": 2}
    calm, expected, _ = train(tiny_model("bert"), tmp_path / "calm", **settings)
    with pytest.raises(Planted):
        train(tiny_model("bert"), tmp_path / "broken", breaks_at(6), **settings)
    again, handle, ended = train(tiny_model("bert"), tmp_path / "broken", **settings)
    assert ended.resumed_at == [4] and handle.steps.item() == expected.steps.item() > 4
    assert torch.equal(handle.seen, expected.seen) and same_weights(again, calm)
    assert lines(tmp_path / "broken") == lines(tmp_path / "calm")


def test_a_checkpoint_without_the_methods_tensors_is_refused(tiny_model, tmp_path):
    """As one that was written before the method kept any."""
    with pytest.raises(Planted):
        train(tiny_model("bert"), tmp_path / "run", breaks_at(4), checkpoint_every=2)
    (path,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    file = path / "optimizer.safetensors"
    tensors = load_file(file)
    assert tensors.pop("method.seen").any() and tensors.pop("method.steps").item() == 2
    save_file(tensors, file)
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["digest"]
    manifest["files"][file.name] = {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    write_json(path / "manifest.json", manifest | {"digest": canonical_hash(manifest)})
    with pytest.raises(EnvironmentFault, match=r"other tensors than this model: method\.seen"):
        train(tiny_model("bert"), tmp_path / "run")
