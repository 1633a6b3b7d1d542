"""What saves memory works for every method: products in bfloat16, moments in eight bits, frozen weights in bfloat16.

Gradient checkpointing is held to the same gradient in `test_conformance_engine.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.methods.settings import DECODER, ENCODER, cases, rest_under_torture, section
from tests.methods.trainings import ROWS, Training, trains
from torch import Tensor

from reglaj.models.frozen_weights import narrow_frozen
from reglaj.training import optimizer_8bit
from reglaj.training.fit import build_step

STEPS = 8
KEEPS_FLOATS = ("full", "dora", "qlora", "peft", "lora, principal part")
"""Nothing linear is frozen, the method reads the weights by itself (or may), or they lie in four bits already."""
everywhere = pytest.mark.parametrize(
    ("case", "family"),
    rest_under_torture([(case, family) for case in cases() for family in (ENCODER, DECODER)], ENCODER),
)


def losses(training: Training, steps: int) -> list[float]:
    """Of steps over all rows, in one pass each."""
    torch.manual_seed(5)
    step = build_step(training.learner, training.supervision, training.config)
    training.learner.train()
    training.learner.handle.begin(steps)
    return [step(number, training.batches(range(ROWS), 10_000)).loss for number in range(1, steps + 1)]


@everywhere
def test_it_learns_in_bfloat16_with_moments_in_eight_bits(
    case: str, family: str, subject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizer_8bit, "SMALLEST", 64)  # of a tiny model, too
    folder = trains(case, family, subject)
    narrow = {"precision": "bfloat16", "optimizer": "adamw-8bit", "learning_rate": 1e-3 if "plus" in case else 3e-3}
    training = Training(case, family, folder, **narrow)
    found = losses(training, STEPS)
    assert found[-1] < found[0] and all(tensor.isfinite().all() for tensor in training.learner.trained().values())
    plain = losses(Training(case, family, folder, **narrow | {"optimizer": "adamw", "precision": "float32"}), STEPS)
    fell, falls = found[0] - found[-1], plain[0] - plain[-1]
    assert fell == pytest.approx(falls, rel=0.25, abs=0.02), "about as far as with everything in float32"


@everywhere
def test_frozen_weights_in_bfloat16_change_nothing(case: str, family: str, subject: Any) -> None:
    """Losses, and everything that was learnt: bitwise."""
    folder = trains(case, family, subject)
    plain, narrow = (Training(case, family, folder, precision="bfloat16") for _ in range(2))
    learning = {id(parameter) for parameter in narrow.learner.named_parameters().values()}
    before = weights(narrow)
    freed = narrow_frozen(narrow.learner.backbone, torch.bfloat16)
    changed = {key for key, weight in weights(narrow).items() if weight.dtype != before[key].dtype}
    assert not changed & {key for key, weight in narrow.learner.backbone.named_parameters() if id(weight) in learning}
    assert freed == 2 * sum(before[key].numel() for key in changed)
    assert not any(part in key for key in changed for part in ("embed", "norm", "Norm", "bias"))
    if case not in KEEPS_FLOATS and section(case)["name"] not in KEEPS_FLOATS:
        assert changed, "what is frozen takes half"
    assert losses(narrow, 3) == losses(plain, 3)
    theirs = plain.learner.trained()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in narrow.learner.trained().items())


def weights(training: Training) -> dict[str, Tensor]:
    """The parameters of the base and the method, as they are now."""
    return {key: parameter.detach() for key, parameter in training.learner.backbone.named_parameters()}
