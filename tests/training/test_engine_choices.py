"""Promises 4 and 5 on every choice of the engine: one loss however a step is run, and the same end after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.test_never_seen import tiny
from tests.tiny import write_model, write_tokenizer
from tests.training import harness
from tests.training.choices import Choice, Training
from torch import Tensor

from reglaj.core.console import SILENT
from reglaj.core.errors import UserError
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.feeding import Feeding
from reglaj.training.fit import Fitted, build_step, fit, plan_for

Folder = Callable[[str], Path]
WHOLE = 10_000
"""Tokens that all rows of a test fit into."""


class Planted(Exception):
    """What a test does to a training; nothing in the product knows it."""


def gradients(folder: Path, choice: Choice, budget: int) -> tuple[int, float, dict[str, Tensor]]:
    """Of one step over all rows: micro-batches, loss, and the gradient of everything that learns."""
    training = Training(folder, choice)
    training.waken_updates()
    learner = training.learner
    step = build_step(learner, training.supervision, training.config)
    learner.train()
    batches = training.batches(range(24), budget)
    loss = step.accumulate(batches).item()
    return len(batches), loss, {key: p.grad.clone() for key, p in learner.named_parameters().items()}


@pytest.fixture(scope="module")
def alone(model_folder: Folder) -> Callable[[Choice], tuple[float, dict[str, Tensor]]]:
    """Each text by itself, with transformers' attention and PEFT's own layers: once for a family and a method."""
    made: dict[tuple[str, str], Any] = {}

    def measure(choice: Choice) -> tuple[float, dict[str, Tensor]]:
        key = choice.family, choice.method
        if key not in made:
            plain = Choice(family=choice.family, method=choice.method, layout="padded", is_fused=False)
            count, *made[key] = gradients(model_folder(choice.family), plain, 1)
            assert count == 24
        return made[key]

    return measure


@pytest.mark.parametrize(
    "choice",
    [
        Choice(family="bert", method="full", layout="packed"),
        Choice(family="bert", method="full", layout="packed", attention="grid"),
        Choice(family="bert", method="full", layout="packed", is_checkpointed=True),
        Choice(family="bert", method="full", layout="packed", attention="grid", is_checkpointed=True),
        Choice(family="bert", method="full", layout="packed-masked"),
        Choice(family="bert", method="lora", layout="packed"),
        Choice(family="bert", method="lora", layout="packed", attention="grid", is_fused=False),
        Choice(family="bert", method="lora", layout="padded"),
        Choice(family="distilbert", method="full", layout="packed", attention="grid"),
        Choice(family="distilbert", method="lora", layout="packed"),
        Choice(family="electra", method="full", layout="packed-masked"),
        Choice(family="electra", method="lora", layout="packed-masked"),
        Choice(family="electra", method="lora", layout="packed-masked", is_fused=False, is_checkpointed=True),
        Choice(family="llama", method="lora", layout="packed-causal", is_fused=False),
        Choice(family="llama", method="lora", layout="packed-causal", is_checkpointed=True),
        Choice(family="qwen2", method="lora", layout="packed-causal"),
        Choice(family="qwen2", method="lora", layout="packed-masked-causal", is_fused=False),
        Choice(family="gpt2", method="full", layout="packed-causal", is_checkpointed=True),
        Choice(family="gpt2", method="lora", layout="packed-causal"),
        Choice(family="gpt2", method="lora", layout="packed-causal", is_fused=False),
        Choice(family="gpt2", method="lora", layout="packed-masked-causal"),
        Choice(family="gpt2", method="lora", layout="padded"),
    ],
    ids=str,
)
def test_loss_and_gradient_do_not_depend_on_how_a_step_is_cut(model_folder: Folder, alone: Any, choice: Choice) -> None:
    expected_loss, expected = alone(choice)
    counts = []
    for budget in (1, 250 if choice.is_chat else 40, WHOLE):
        count, loss, found = gradients(model_folder(choice.family), choice, budget)
        counts.append(count)
        assert loss == pytest.approx(expected_loss, abs=1e-5), budget
        assert found.keys() == expected.keys() and found
        apart = {key: (gradient - expected[key]).abs().max().item() for key, gradient in found.items()}
        worst = max(apart, key=apart.__getitem__)
        assert apart[worst] < 1e-5, f"{worst} is {apart[worst]:.1e} apart with micro-batches of {budget} tokens"
    assert counts[0] == 24 > counts[1] > counts[2] == 1


@pytest.mark.parametrize("attention", ["per-text", "grid"])
def test_layers_of_an_encoder_are_computed_again(model_folder: Folder, attention: Any) -> None:
    """In the backward pass, outside of ours, where they meet the packed attention all the same."""
    choice = Choice(family="bert", method="full", layout="packed", attention=attention, is_checkpointed=True)
    training, passes = Training(model_folder("bert"), choice), []
    # On a part of the layer: hooks of the layer itself stay outside of what checkpointing repeats.
    training.learner.backbone.encoder.layer[0].attention.register_forward_pre_hook(lambda *_: passes.append(1))
    training.learner.train()
    step = build_step(training.learner, training.supervision, training.config)
    step.accumulate(training.batches(range(24), WHOLE))
    assert len(passes) == 2


def training_for(folder: Path, choice: Choice) -> Training:
    """Six steps, with dropout: the random states are part of what goes on."""
    settings = {
        "epochs": 2, "learning_rate": 3e-3, "model_dropout": 0.2, "micro_batch_tokens": 250 if choice.is_chat else 40,
        "checkpoint_every": 2, "early_stopping": {"metric": "validation_loss"},
    }  # fmt: skip
    return Training(folder, choice, **settings)


def train(training: Training, folder: Path, *, breaks_in: int = 0) -> Fitted:
    """fit, which breaks in the last pass of that step."""
    supervision, plan = training.supervision, plan_for(training.config, training.encoded.rows)
    budget = training.learner.engine.micro_batch_tokens
    sizes = [len(training.batches(plan.rows(number), budget)) for number in range(1, breaks_in + 1)]
    assert all(size > 1 for size in sizes)
    left = sum(sizes)

    def forward(batch: Any) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            raise Planted
        return supervision.forward(batch)

    folder.mkdir(exist_ok=True)
    return fit(training.learner, replace(supervision, forward=forward), training.config, folder, identity="me")


def same_weights(one: Training, other: Training) -> bool:
    ours, theirs = one.learner.trained(), other.learner.trained()
    return all(torch.equal(ours[key], theirs[key]) for key in ours | theirs)


@pytest.mark.parametrize(
    "choice",
    [
        Choice(family="bert", method="full", layout="packed"),
        Choice(family="bert", method="full", layout="packed", attention="grid"),
        Choice(family="bert", method="full", layout="packed", is_checkpointed=True),
        Choice(family="bert", method="full", layout="padded"),
        Choice(family="bert", method="full", layout="padded", is_checkpointed=True),
        Choice(family="bert", method="lora", layout="packed", attention="grid"),
        Choice(family="electra", method="full", layout="packed-masked"),
        Choice(family="llama", method="full", layout="packed-causal"),
        Choice(family="llama", method="lora", layout="packed-causal"),
        Choice(family="llama", method="lora", layout="packed-causal", is_fused=False),
        Choice(family="llama", method="lora", layout="packed-causal", is_checkpointed=True),
        Choice(family="gpt2", method="lora", layout="packed-masked-causal"),
    ],
    ids=str,
)
def test_a_stopped_training_ends_bitwise_as_the_calm_one_on_what_it_was_begun_with(
    model_folder: Folder, tmp_path: Path, choice: Choice
) -> None:
    """The second start is free to choose, and would often choose otherwise: it must not."""
    folder = model_folder(choice.family)
    calm = training_for(folder, choice)
    train(calm, tmp_path / "calm")
    broken = training_for(folder, choice)
    with pytest.raises(Planted):
        train(broken, tmp_path / "broken", breaks_in=4)
    assert [path.name for path in list_checkpoints(tmp_path / "broken" / "checkpoints")] == ["step-000002"]
    assert not same_weights(broken, calm), "it had not come to the end"
    again = training_for(folder, choice.by_itself())
    assert again.learner.engine.attention == "by-length"
    fitted = train(again, tmp_path / "broken")
    assert fitted.resumed_at == [2] and fitted.steps == 6
    assert again.learner.engine == calm.learner.engine
    assert same_weights(again, calm)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            Choice(family="bert", method="full", layout="packed"),
            Choice(family="bert", method="full", layout="packed", attention="grid"),
        ),
        (
            Choice(family="bert", method="full", layout="packed", attention="grid"),
            Choice(family="bert", method="full", layout="padded"),
        ),
        (
            Choice(family="llama", method="lora", layout="packed-causal"),
            Choice(family="llama", method="lora", layout="packed-causal", is_fused=False),
        ),
    ],
    ids=["attention", "layout", "operations"],
)
def test_another_choice_would_be_seen(model_folder: Folder, tmp_path: Path, one: Choice, other: Choice) -> None:
    """No two choices give the same bits: going on with another one could not end as the calm training does."""
    trainings = []
    for choice in (one, one, other):
        trainings.append(training_for(model_folder(choice.family), choice))
        train(trainings[-1], tmp_path / str(len(trainings)))
    assert same_weights(*trainings[:2]) and not same_weights(*trainings[1:])


def test_what_padding_would_change_is_trained_and_scored_alone(tmp_path: Path) -> None:
    """ConvBERT's convolutions reach from a text into the padding behind it. Nothing that a recipe says brings two
    texts together."""
    tiny("convbert").save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    assembled = harness.learner_for(tmp_path, micro_batch_tokens=4096, precision="float32")
    learner = assembled.learner
    assert learner.engine.layout == "alone" and learner.engine.micro_batch_tokens == 1
    supervision, encoded = harness.supervise(assembled, harness.some_rows(24))
    feeding = Feeding(plan_for(assembled.recipe.train, encoded.rows), learner, supervision.load, SILENT, is_ahead=False)
    assert {len(batch.tokens.lengths) for batch in feeding.batches(1)} == {1}
    scores = torch.from_numpy(learner.scores(encoded.rows))
    with learner.evaluating():
        alone = torch.cat([learner.outputs(encoded.rows.batch([row], "cpu")) for row in range(24)])
        learner.engine = replace(learner.engine, layout="padded")
        padded = learner.outputs(encoded.rows.batch(list(range(24)), "cpu"))
    assert torch.allclose(scores, alone, atol=1e-5)
    assert not torch.allclose(padded, alone, atol=1e-2), "it would have made a difference"


def test_an_architecture_without_checkpointed_layers_is_refused(model_folder: Folder) -> None:
    learner = harness.learner_for(model_folder("bert")).learner
    learner.backbone.supports_gradient_checkpointing = False
    with pytest.raises(UserError, match="gradient_checkpointing"):
        learner.checkpoint_gradients()


def test_a_forced_precision_that_the_processor_lacks_is_said(model_folder: Folder) -> None:
    engine = harness.learner_for(model_folder("bert"), precision="bfloat16").learner.engine
    units = torch.cpu.get_capabilities()
    has_units = any(units.get(unit) for unit in ("avx512_bf16", "amx_bf16"))
    assert engine.precision == "bfloat16"
    assert bool(engine.remark) is not has_units
    assert not harness.learner_for(model_folder("bert"), precision="float32").learner.engine.remark


def test_virtual_tokens_count_where_positions_turn_with_the_longest_text(tmp_path):
    """Else a text behind a prompt would be read otherwise beside a longer one."""
    write_model(tmp_path, "llama")
    file = tmp_path / "config.json"
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 16}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": rope}))
    layouts = []
    for count in (2, 4):
        method = {"name": "prompt", "num_virtual_tokens": count}
        layouts.append(harness.learner_for(tmp_path, method, max_tokens=14).learner.engine.layout)
    assert layouts == ["packed-causal", "alone"]
