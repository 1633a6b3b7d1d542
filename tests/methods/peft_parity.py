"""What we save opens in plain PEFT with equal outputs, and what plain PEFT saves opens here."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import peft
import torch
from tests.methods.subjects import Subject

from reglaj.data.batching import micro_batches
from reglaj.methods.base import Handle
from reglaj.training.fit import build_step
from reglaj.training.optimizer import set_learning_rate

CLOSE = 1e-5
PARITY_FAMILIES = ("bert", "llama", "gpt2", "t5")


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference, measured by the largest value."""
    return float((one - other).abs().max() / other.abs().max().clamp(min=1.0))


def opened_in_plain_peft(here: Subject, case: str, folder: Path) -> Any:
    """PEFT's own model around transformers' own, from saved files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.PeftModel.from_pretrained(here.model(case), folder).eval()


def ours_opens_there(here: Subject, case: str, handle: Handle, folder: Path) -> None:
    """After learning something: equal outputs, which are not the base's."""
    handle.save(folder)
    plain = opened_in_plain_peft(here, case, folder)
    with torch.no_grad():
        ours, theirs = here.look(handle.model, handle), here.look(plain.base_model.model)
    assert apart(ours, theirs) < CLOSE
    assert apart(ours, here.expected(case)) > 10 * CLOSE, "what was learnt must matter for this to show anything"


def theirs_opens_here(here: Subject, case: str, config: peft.PeftConfig, handle: Handle, folder: Path) -> None:
    """handle: on a fresh model, with settings like those of PEFT's config; its own start is overwritten."""
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = peft.get_peft_model(here.model(case), config).eval()
        with torch.no_grad():
            for parameter in plain.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter) * 0.1
        plain.save_pretrained(folder)
    handle.load(folder)
    with torch.no_grad():
        theirs, ours = here.look(plain.base_model.model), here.look(handle.model, handle)
    assert apart(ours, theirs) < CLOSE
    assert apart(ours, here.expected(case)) > 10 * CLOSE


def targets_of(handle: Any) -> list[str]:
    """The modules that a handle's layers stand at, as PEFT is told them."""
    return list(handle.config.target_modules)


def run_steps(training: Any) -> list[float]:
    """Our losses of the steps of a `Training` of `test_low_rank_steps`, the rows of a step in several micro-batches."""
    learner, config = training.learner, training.config
    budget = 250 if training.assembled.recipe.task == "chat" else 40
    step = build_step(learner, training.supervision, config)
    learner.train()
    learner.handle.begin(config.max_steps)

    def take(number: int, rows: list[int], factor: float) -> float:
        set_learning_rate(step.optimizer, factor)
        groups = micro_batches(rows, training.encoded.rows.lengths, budget, is_padded=learner.engine.is_padded)
        assert len(groups) > 1
        return step(number, [training.supervision.load(group) for group in groups]).loss

    losses: list[float] = training.steps(take)
    return losses
