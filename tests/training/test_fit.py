"""A training that is stopped goes on as if nothing had been; one that goes wrong says so and saves nothing false."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.harness import Rows, learner_for, some_rows, supervise

from reglaj.core.console import Console
from reglaj.core.errors import EnvironmentFault, GateRefused
from reglaj.data.batching import micro_batches
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.fit import Fitted, build_step, fit
from reglaj.training.guards import NonFiniteError, UntrainedError
from reglaj.training.learner import Learner


class Said(Console):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


class Planted(Exception):
    """What a test does to a training; nothing in the product knows it."""


def train(
    model: Path, folder: Path, method: Any = "full", plant: Any = None, rows: Rows | None = None, **settings: Any
) -> tuple[Learner, Fitted, Said]:
    """fit in a folder. plant: changes learner and supervision before it."""
    stopping = {"early_stopping": {"metric": "validation_loss"}}
    assembled = learner_for(model, method, **stopping | settings)
    supervision, encoded = supervise(assembled, rows or some_rows(48))
    if plant:
        supervision = plant(assembled.learner, supervision, encoded)
    folder.mkdir(exist_ok=True)
    said = Said()
    fitted = fit(assembled.learner, supervision, assembled.recipe.train, folder, said, identity="me")
    return assembled.learner, fitted, said


def breaks_at(step: int) -> Any:
    """The forward pass fails at that step, as a process that dies there would leave things."""

    def plant(learner: Learner, supervision: Any, encoded: Any) -> Any:
        done = 0

        def forward(batch: Any) -> Any:
            nonlocal done
            done += 1
            if done == step:
                raise Planted
            return supervision.forward(batch)

        return replace(supervision, forward=forward)

    return plant


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) | {"time": 0} for line in (folder / "metrics.jsonl").read_text().splitlines()]


def same_weights(one: Learner, other: Learner) -> bool:
    ours, theirs = one.trained(), other.trained()
    return all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


@pytest.mark.parametrize("method", ["full", "lora", "linear-probe"])
def test_a_training_that_broke_twice_ends_bitwise_as_the_calm_one(tiny_model, tmp_path, method):
    """Dropout on: the random states are part of it. Early stopping and the best weights too."""
    settings = {"model_dropout": 0.2, "epochs": 6, "evaluate_every": 2, "learning_rate": 5e-3, "checkpoint_every": 3}
    calm, fitted, _ = train(tiny_model("bert"), tmp_path / "calm", method, **settings)
    for step in (5, 4):
        with pytest.raises(Planted):
            train(tiny_model("bert"), tmp_path / "broken", method, breaks_at(step), **settings)
    again, ended, said = train(tiny_model("bert"), tmp_path / "broken", method, **settings)
    assert ended.resumed_at == [3, 6] and any("goes on after step 6" in line for line in said.lines)
    assert same_weights(again, calm)
    assert (ended.best_step, ended.stopped, ended.steps) == (fitted.best_step, fitted.stopped, fitted.steps)
    assert lines(tmp_path / "broken") == lines(tmp_path / "calm")
    assert ended.tokens == fitted.tokens


def test_what_has_ended_is_not_trained_again(tiny_model, tmp_path):
    first, fitted, _ = train(tiny_model("bert"), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    again, ended, _ = train(tiny_model("bert"), tmp_path / "run", plant=breaks_at(1))
    assert same_weights(first, again) and (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    assert ended.steps == fitted.steps and ended.resumed_at == [fitted.steps]


def test_metrics_that_were_lost_or_have_too_many_lines_are_mended(tiny_model, tmp_path):
    train(tiny_model("bert"), tmp_path / "calm")
    for spoil in ("cut", "longer", "gone"):
        with pytest.raises(Planted):
            train(tiny_model("bert"), tmp_path / spoil, plant=breaks_at(5), checkpoint_every=2)
        file = tmp_path / spoil / "metrics.jsonl"
        text = file.read_text()
        file.write_text({"cut": text[: len(text) // 2], "longer": text + text, "gone": ""}[spoil])
        train(tiny_model("bert"), tmp_path / spoil)
        assert lines(tmp_path / spoil) == lines(tmp_path / "calm"), spoil


def test_checkpoints_come_by_steps_by_minutes_and_at_the_end(tiny_model, tmp_path):
    def names(**settings: Any) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        train(tiny_model("bert"), folder, keep=9, **settings)
        return [path.name[-2:] for path in list_checkpoints(folder / "checkpoints")]

    assert names(checkpoint_minutes=None) == ["06"]
    assert names(checkpoint_every=4) == ["04", "06"]
    assert names(checkpoint_minutes=1e-9) == ["01", "02", "03", "04", "05", "06"]


def test_a_clock_that_jumps_back_changes_nothing(tiny_model, tmp_path, monkeypatch):
    calm, _, _ = train(tiny_model("bert"), tmp_path / "calm", checkpoint_minutes=1e-9)
    now = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    back, fitted, _ = train(tiny_model("bert"), tmp_path / "back", checkpoint_minutes=1e-9, keep=9)
    assert len(list_checkpoints(tmp_path / "back" / "checkpoints")) == fitted.steps == 6
    assert same_weights(back, calm) and fitted.seconds >= 0


def nan_for(*places: str) -> Any:
    """Rows whose scores are not a number."""

    def plant(learner: Learner, supervision: Any, encoded: Any) -> Any:
        def forward(batch: Any) -> Any:
            broken = torch.tensor([[place.partition(",")[0] in places] for place in batch.places])
            return supervision.forward(batch).masked_fill(broken, float("nan"))

        return replace(supervision, forward=forward)

    return plant


def test_a_planted_nan_stops_and_is_named_or_is_skipped_and_counted(tiny_model, tmp_path):
    with pytest.raises(NonFiniteError, match="row-7"):
        train(tiny_model("bert"), tmp_path / "stop", plant=nan_for("row-7"))
    assert not any("nan" in line.lower() for line in (tmp_path / "stop" / "metrics.jsonl").read_text().splitlines())
    learner, fitted, said = train(tiny_model("bert"), tmp_path / "skip", plant=nan_for("row-7"), on_nonfinite="skip")
    assert fitted.skipped == 2, "once in each epoch"
    assert all(bool(tensor.isfinite().all()) for tensor in learner.trained().values())
    skipped = [line for line in fitted.metrics if line["event"] == "skipped"]
    assert [line["step"] for line in fitted.metrics if line["event"] in ("step", "skipped")] == list(range(1, 7))
    assert len(skipped) == 2 and "row-7" in skipped[0]["why"] and "left out" in " ".join(said.lines)


def test_too_many_skipped_steps_end_the_run(tiny_model, tmp_path):
    everything = [f"row-{number}" for number in range(48)]
    settings = {"on_nonfinite": "skip", "max_skipped_steps": 3}
    with pytest.raises(NonFiniteError, match="3 steps were left out before"):
        train(tiny_model("bert"), tmp_path / "run", plant=nan_for(*everything), **settings)


def test_weights_out_of_range_are_neither_skipped_nor_saved(tiny_model, tmp_path):
    huge = {"learning_rate": 1e38, "head_learning_rate": 1e38, "warmup_ratio": 0, "on_nonfinite": "skip"}
    with pytest.raises(GateRefused, match="not finite"):
        train(tiny_model("bert"), tmp_path / "run", checkpoint_every=1, **huge)
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_finite_weights_that_overflow_are_a_gate_and_not_a_fault_of_ours(tiny_model, tmp_path):
    large = {"learning_rate": 1e20, "head_learning_rate": 1e20, "warmup_ratio": 0, "evaluate_every": 1}
    with pytest.raises(GateRefused, match="not finite"):
        train(tiny_model("bert"), tmp_path / "run", **large)


def test_tensors_of_another_name_are_said_and_not_taken(tiny_model, tmp_path):
    """As after an update of a library that calls its layers otherwise."""
    with pytest.raises(Planted):
        train(tiny_model("bert"), tmp_path / "run", plant=breaks_at(5), checkpoint_every=2)

    def renamed(learner: Learner, supervision: Any, encoded: Any) -> Any:
        learner.head.renamed = learner.head.linear
        del learner.head.linear
        return supervision

    with pytest.raises(EnvironmentFault, match=r"other tensors than this model: head\.linear"):
        train(tiny_model("bert"), tmp_path / "run", plant=renamed)


def test_a_parameter_that_nothing_reaches_is_named_after_the_first_step(tiny_model, tmp_path):
    def unused(learner: Learner, supervision: Any, encoded: Any) -> Any:
        learner.head.forgotten = torch.nn.Parameter(torch.ones(3))
        return supervision

    with pytest.raises(UntrainedError, match=r"step 1: 1 of \d+ trainable parameters(?s:.*)head\.forgotten"):
        train(tiny_model("bert"), tmp_path / "run", plant=unused)
    assert list_checkpoints(tmp_path / "run" / "checkpoints") == []


def test_a_gradient_of_zero_is_named(tiny_model, tmp_path):
    def zero(name: str) -> Any:
        def plant(learner: Learner, supervision: Any, encoded: Any) -> Any:
            for key, parameter in learner.named_parameters().items():
                if name in key:
                    parameter.register_hook(torch.zeros_like)
            return supervision

        return plant

    name = "encoder.layer.1.output.dense.weight"
    for _ in range(2):  # the same command does not get past it
        with pytest.raises(UntrainedError, match=f"step 3: 1 of (?s:.*){name}"):
            train(tiny_model("bert"), tmp_path / "one", plant=zero(name), checkpoint_every=1)
    with pytest.raises(UntrainedError, match=r"step 1: .* nothing would be learnt"):
        train(tiny_model("bert"), tmp_path / "all", plant=zero(""))


def hungry(tokens: int, kind: str = "device") -> Any:
    """No more memory for passes of more tokens, with a failed allocation of the kind."""

    def plant(learner: Learner, supervision: Any, encoded: Any) -> Any:
        def forward(batch: Any) -> Any:
            if len(batch.tokens.input_ids) > tokens:
                if kind == "device":
                    raise torch.OutOfMemoryError("CUDA out of memory")
                torch.empty(1 << 55)  # a real one, refused by the allocator of the processor
            return supervision.forward(batch)

        return replace(supervision, forward=forward)

    return plant


@pytest.mark.parametrize("kind", ["device", "processor"])
def test_out_of_memory_halves_the_micro_batch_and_keeps_the_loss(tiny_model, tmp_path, kind):
    # Dropout is off in the harness: then how a step is cut changes nothing but rounding.
    calm, plain, _ = train(tiny_model("bert"), tmp_path / "calm")
    small, fitted, said = train(tiny_model("bert"), tmp_path / kind, plant=hungry(60, kind))
    assert small.engine.micro_batch_tokens < calm.engine.micro_batch_tokens
    assert small.engine.halved_at[0] == 1 and "out of memory at step 1" in " ".join(said.lines)
    for ours, theirs in zip(fitted.metrics, plain.metrics, strict=True):
        key = "loss" if ours["event"] == "step" else "validation_loss"
        assert ours[key] == pytest.approx(theirs[key], abs=1e-5)
    state = json.loads(next((tmp_path / kind / "checkpoints").glob("*/state.json")).read_text())
    assert state["engine"]["halved_at"] == list(small.engine.halved_at), "who goes on begins with what fitted"


def test_dropout_draws_the_same_after_a_pass_that_failed(tiny_model):
    """The second try of a step begins with the random state of the first."""
    weights = []
    for fails in (False, True):
        assembled = learner_for(tiny_model("bert"), "full", model_dropout=0.3)
        supervision, encoded = supervise(assembled, some_rows(16))
        batches = [supervision.load(group) for group in micro_batches(range(16), encoded.rows.lengths, 60)]
        assembled.learner.train()
        step = build_step(assembled.learner, supervision, assembled.recipe.train)
        done = []

        def forward(batch: Any, fails=fails, done=done, supervision=supervision) -> Any:
            done.append(batch)
            if fails and len(done) == 2:
                raise torch.OutOfMemoryError("planted")
            return supervision.forward(batch)

        step.forward = forward
        step(1, batches, again=lambda batches=batches: batches)
        assert len(done) == len(batches) + (2 if fails else 0)
        weights.append({key: tensor.clone() for key, tensor in assembled.learner.trained().items()})
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_row_that_does_not_fit_alone_is_an_environment_fault(tiny_model, tmp_path):
    with pytest.raises(EnvironmentFault, match=r"single row of \d+ tokens"):
        train(tiny_model("bert"), tmp_path / "run", plant=hungry(3))


def test_a_checkpoint_that_has_no_room_for_a_copy_is_written_all_the_same(tiny_model, tmp_path, monkeypatch):
    calm, _, _ = train(tiny_model("bert"), tmp_path / "calm", checkpoint_every=2, keep=9)

    def no_room(self: Any, tensors: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("reglaj.training.saving.Copies.take", no_room)
    tight, _, _ = train(tiny_model("bert"), tmp_path / "tight", checkpoint_every=2, keep=9)
    assert same_weights(tight, calm)
    both = [list_checkpoints(tmp_path / name / "checkpoints") for name in ("tight", "calm")]
    for ours, theirs in zip(*both, strict=True):
        for name in ("weights", "optimizer"):
            assert (ours / f"{name}.safetensors").read_bytes() == (theirs / f"{name}.safetensors").read_bytes()


def test_evaluation_that_does_not_fit_is_cut_smaller(tiny_model):
    assembled = learner_for(tiny_model("bert"))
    learner = assembled.learner
    _, encoded = supervise(assembled, some_rows(40))
    expected = learner.scores(encoded.rows)
    outputs, sizes = learner.outputs, []

    def limited(tokens: Any) -> Any:
        if len(tokens.lengths) > 7:
            raise torch.OutOfMemoryError("planted")
        sizes.append(len(tokens.lengths))
        return outputs(tokens)

    learner.outputs = limited  # type: ignore[method-assign]
    assert np.allclose(learner.scores(encoded.rows), expected, atol=1e-6)
    assert sum(sizes) == 40 and max(sizes) <= 7
