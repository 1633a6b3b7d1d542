"""What every method keeps on every choice of the engine: one gradient however a step is cut, and the same end after a
stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.settings import BOTH, DECODER, ENCODER, cases, rest_under_torture, with_variants_on
from tests.methods.subjects import TARGETS, TEXTS
from tests.methods.trainings import Planted, Training, same_end, trains
from torch import Tensor

from reglaj.models.packing import TokenBatch
from reglaj.training.checkpoints import list_checkpoints
from reglaj.training.fit import Fitted, fit, plan_for

WHOLE = 10_000
"""Tokens that all rows fit into."""
CLOSE = 1e-5
CHOICES: dict[str, list[tuple[Any, Any]]] = {
    ENCODER: [("packed", "per-text"), ("packed", "grid"), ("packed-masked", "per-text"), ("padded", "per-text")],
    DECODER: [
        ("packed-causal", "per-text"),
        ("packed-causal", "grid"),
        ("packed-masked-causal", "per-text"),
        ("padded", "per-text"),
    ],
}
"""Layouts that suit the family, and how texts attend in them."""


def same(found: dict[str, Tensor], expected: dict[str, Tensor], told: Any) -> None:
    """Gradients are those of each text alone."""
    assert found.keys() == expected.keys() and found
    apart = {
        key: ((gradient - expected[key]).abs().max() / expected[key].abs().max().clamp(min=1.0)).item()
        for key, gradient in found.items()
    }
    worst = max(apart, key=apart.__getitem__)
    assert apart[worst] < CLOSE, f"{told}: {worst} is {apart[worst]:.1e} apart"


@pytest.mark.parametrize(("case", "family"), with_variants_on(ENCODER, DECODER))
def test_loss_and_gradient_do_not_depend_on_how_a_step_is_cut(
    case: str, family: str, subject: Any, tmp_path: Path
) -> None:
    """Each text alone, padded, without fused operations, is what everything else has to equal; checkpointed too, and
    with the states of frozen layers that were kept."""
    training = Training(case, family, trains(case, family, subject))
    learner, facts = training.learner, training.assembled.facts
    training.stir()
    training.take("padded", "per-text", is_fused=False)
    expected_loss, expected = training.gradients(1)
    assert expected.keys() == learner.named_parameters().keys(), "all of them get a gradient"
    is_fusible = learner.handle.fuse(True)

    def look(told: str, budgets: tuple[int, ...], choices: list[tuple[Any, Any]] = CHOICES[family]) -> None:
        for layout, attention in choices:
            training.take(layout, attention, is_fused=is_fusible)
            for budget in budgets:
                loss, found = training.gradients(budget)
                assert loss == pytest.approx(expected_loss, abs=CLOSE), (told, layout, attention, budget)
                same(found, expected, (told, layout, attention, budget))

    look("plain", (120 if family == DECODER else 40, WHOLE))
    look("alone", (1,), [("alone", "per-text")])
    if learner.backbone.supports_gradient_checkpointing and not learner.trunk_is_frozen:
        learner.checkpoint_gradients()
        look("checkpointed", (WHOLE,))
    if 0 < learner.handle.capabilities.lowest_trained_layer < facts.layers:
        training.take(*CHOICES[family][0], is_fused=is_fusible)
        training.keep_states(tmp_path)
        look("kept", (WHOLE,), CHOICES[family][:1])


@pytest.mark.parametrize("case", cases())
def test_an_encoder_decoder_reads_texts_together_as_alone(case: str, subject: Any) -> None:
    """Padded beside others or by itself, checkpointed or not: one gradient."""
    here = subject(BOTH)
    handle = here.moved(case)
    from reglaj.models.seq2seq import seq2seq_logits

    parameters = {key: p for group in handle.parameters().values() for key, p in group}
    if not parameters:
        pytest.skip(f"{case} has nothing that learns here")
    pairs = [([text], [target]) for text, target in zip(TEXTS, TARGETS, strict=True)]

    def gradients(batches: Any) -> dict[str, Tensor]:
        handle.model.zero_grad()
        for texts, targets in batches:
            virtual = handle.virtual()
            extra = {} if virtual is None else {"virtual": virtual}
            found = seq2seq_logits(handle.model, TokenBatch.of(texts), TokenBatch.of(targets), **extra)
            labels = torch.cat([torch.from_numpy(target[::-1].copy()) for target in targets])
            torch.nn.functional.cross_entropy(found, labels, reduction="sum").backward()
        return {key: p.grad.clone() for key, p in parameters.items() if p.grad is not None}

    expected = gradients(pairs)
    assert expected.keys() == parameters.keys()
    same(gradients([(TEXTS, TARGETS)]), expected, "together")
    handle.model.gradient_checkpointing_enable({"use_reentrant": False})
    handle.model.train()
    for module in handle.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # T5's attention has a number
    same(gradients([(TEXTS, TARGETS)]), expected, "checkpointed")


def training_for(case: str, family: str, folder: Path) -> Training:
    """Six steps, with dropout: the random states are part of what goes on."""
    settings = {
        "epochs": 2,
        "learning_rate": 3e-3,
        "model_dropout": 0.2,
        "micro_batch_tokens": 250 if family == DECODER else 40,
        "checkpoint_every": 2,
        "early_stopping": {"metric": "validation_loss"},
    }
    return Training(case, family, folder, 24, **settings)


def train(training: Training, folder: Path, *, breaks_in: int = 0) -> Fitted:
    """fit, which breaks in the last pass of that step."""
    supervision, plan = training.supervision, plan_for(training.config, training.encoded.rows)
    budget = training.learner.engine.micro_batch_tokens
    left = sum(len(training.batches(plan.rows(number), budget)) for number in range(1, breaks_in + 1))

    def forward(batch: Any) -> Tensor:
        nonlocal left
        left -= 1
        if left == 0:
            raise Planted
        return supervision.forward(batch)

    folder.mkdir(exist_ok=True)
    return fit(training.learner, replace(supervision, forward=forward), training.config, folder, identity="me")


@pytest.mark.parametrize(("case", "family"), rest_under_torture(with_variants_on(ENCODER, DECODER), ENCODER))
def test_a_stopped_training_ends_bitwise_as_the_calm_one(
    case: str, family: str, subject: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = trains(case, family, subject)
    calm = training_for(case, family, folder)
    train(calm, tmp_path / "calm")
    broken = training_for(case, family, folder)
    before = {key: tensor.clone() for key, tensor in broken.learner.trained().items()}
    with pytest.raises(Planted):
        train(broken, tmp_path / "broken", breaks_in=4)
    assert [path.name for path in list_checkpoints(tmp_path / "broken" / "checkpoints")] == ["step-000002"]
    again = training_for(case, family, folder)
    fitted = train(again, tmp_path / "broken")
    assert fitted.resumed_at == [2] and fitted.steps == 6
    same_end(calm.learner, again.learner, before)
