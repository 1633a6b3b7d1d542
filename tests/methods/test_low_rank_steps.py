"""Twenty steps of the low-rank methods equal plain PEFT in a loop by hand, with the real optimizer.

Both begin with the same files: ours are opened in plain PEFT, whose layers, base and autograd are then its own. Only
PiSSA begins as PEFT itself does it, on a base that it changes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.tiny_chat import write_chat_model
from tests.training import chat_harness, harness
from tests.training.choices import DECODERS
from tests.training.plain_loop import PlainChat, PlainClassifier, PlainLoop
from torch import Tensor
from transformers import AutoModelForCausalLM

from reglaj.data.batching import micro_batches
from reglaj.models.storage import storage_of
from reglaj.training.fit import build_step, plan_for
from reglaj.training.optimizer import schedule_factor, set_learning_rate

STEPS, CLOSE = 20, 1e-5


@pytest.fixture(scope="module")
def model_folder(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Decoders with their output matrix, encoders without a head."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = (
                write_chat_model(tmp_path_factory.mktemp(family), family) if family in DECODERS else tiny_model(family)
            )
        return made[family]

    return make


class Training:
    """A learner with its rows, as the plain loop wants it."""

    def __init__(self, folder: Path, family: str, section: dict[str, Any]) -> None:
        settings = {"precision": "float32", "batch_size": 8, "max_steps": STEPS, "epochs": 5, "learning_rate": 1e-3}
        is_chat = family in DECODERS
        self.rows: Any = chat_harness.Rows(32) if is_chat else harness.some_rows(32)
        self.assembled = (chat_harness if is_chat else harness).learner_for(folder, section, **settings)
        self.learner, self.config = self.assembled.learner, self.assembled.recipe.train
        self.supervision, self.encoded = harness.supervise(self.assembled, self.rows)

    def steps(self, take: Callable[[int, list[int], float], float]) -> list[float]:
        plan = plan_for(self.config, self.encoded.rows)
        factors = [schedule_factor(number, STEPS, self.config) for number in range(1, STEPS + 1)]
        return [take(number, plan.rows(number), factor) for number, factor in enumerate(factors, start=1)]

    def run(self, budget: int, plant: Callable[[Any], None] = lambda step: None) -> list[float]:
        """Our losses; the rows of a step in several micro-batches. plant: what a test does to the step."""
        step = build_step(self.learner, self.supervision, self.config)
        plant(step)
        self.learner.train()
        self.learner.handle.begin(STEPS)
        assert self.learner.engine.operations == "fused"

        def take(number: int, rows: list[int], factor: float) -> float:
            set_learning_rate(step.optimizer, factor)
            groups = micro_batches(rows, self.encoded.rows.lengths, budget, is_padded=self.learner.engine.is_padded)
            assert len(groups) > 1
            return step(number, [self.supervision.load(group) for group in groups]).loss

        return self.steps(take)


def plain(folder: Path, training: Training, files: Path) -> PlainLoop:
    """PEFT on transformers' model, from the files that our handle has saved."""
    kind = PlainChat if training.assembled.recipe.task == "chat" else PlainClassifier
    is_pissa = getattr(training.assembled.recipe.method, "init", "") == "pissa"

    class FromFiles(kind):  # type: ignore[valid-type, misc]
        def _load(self, folder: Path) -> Any:
            storage = storage_of(training.learner.backbone)
            if storage is None:
                return super()._load(folder)
            from reglaj.models.quantised import quantisation_config

            settings = {"quantization_config": quantisation_config(storage), "device_map": {"": "cpu"}}
            return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **settings)

        def _with_updates(self, model: Any) -> Any:
            if is_pissa:
                ours = training.learner.handle.config
                settings = peft.LoraConfig(
                    r=ours.r, lora_alpha=ours.lora_alpha, target_modules=ours.target_modules, init_lora_weights="pissa"
                )
                return peft.get_peft_model(model, settings)
            return peft.PeftModel.from_pretrained(model, files, is_trainable=True)

        def _groups(self, module: Any, rate: float | None) -> list[dict[str, Any]]:
            groups = super()._groups(module, rate)
            factor = getattr(training.assembled.recipe.method, "b_rate_factor", 1.0)
            if factor == 1.0:
                return groups
            up = {id(p) for key, p in module.named_parameters() if "lora_B" in key}
            cut = [
                {**group, "params": [p for p in group["params"] if (id(p) in up) == is_up]}
                for group in groups
                for is_up in (False, True)
            ]
            for place, group in enumerate(cut):
                if place % 2:
                    group["lr"] = group["peak"] = rate * factor
            return [group for group in cut if group["params"]]

    return FromFiles(folder, training)  # type: ignore[arg-type]


def learnt(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().clone() for key, tensor in tensors.items() if ".default" in key or "head." in key}


CASES = [
    ("llama", {"name": "lora", "rank": 4}),
    ("gpt2", {"name": "lora", "rank": 4}),
    ("bert", {"name": "lora", "rank": 4, "ranks": {"query": 2}, "is_rank_stabilised": True}),
    ("llama", {"name": "lora", "rank": 4, "b_rate_factor": 4.0}),
    ("llama", {"name": "lora", "rank": 4, "init": "pissa"}),
    ("gpt2", {"name": "lora", "rank": 4, "init": "pissa"}),
    ("llama", {"name": "dora", "rank": 4}),
    ("qwen2", {"name": "dora", "rank": 4, "ranks": {"q_proj": 8}}),
    ("gpt2", {"name": "dora", "rank": 4}),
    ("bert", {"name": "dora", "rank": 4}),
    ("llama", {"name": "qlora", "rank": 4}),
    ("gpt2", {"name": "qlora", "rank": 4}),
]


@pytest.mark.parametrize(
    ("family", "section"), CASES, ids=lambda part: part if isinstance(part, str) else "-".join(map(str, part.values()))
)
def test_twenty_steps_equal_plain_peft(
    family: str, section: dict[str, Any], model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    training = Training(model_folder(family), family, section)
    training.learner.handle.save(tmp_path)
    loop = plain(model_folder(family), training, tmp_path)
    first = learnt(training.learner.trained())
    theirs_first = learnt(loop.tensors())
    for key, tensor in first.items():
        assert torch.allclose(tensor, theirs_first[_their(key, theirs_first)], atol=1e-6), f"both begin alike: {key}"

    theirs = training.steps(lambda _, rows, factor: loop.step(rows, factor))
    ours = training.run(40 if family == "bert" else 250)

    last, theirs_last = learnt(training.learner.trained()), learnt(loop.tensors())
    apart = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    worst = {key: (t - theirs_last[_their(key, theirs_last)]).abs().max().item() for key, t in last.items()}
    assert apart < CLOSE, "losses"
    assert max(worst.values()) < CLOSE, max(worst, key=worst.__getitem__)
    assert min(ours) < ours[0] - 0.05, "something was learnt"
    assert all(not torch.equal(tensor, first[key]) for key, tensor in last.items()), "everything has moved"


def _their(key: str, theirs: dict[str, Tensor]) -> str:
    """PEFT has its names since before the magnitude was a module."""
    return key if key in theirs else key.removesuffix(".weight")


def test_norms_of_the_step_before_would_be_seen(model_folder: Callable[[str], Path]) -> None:
    """The fused AdamW leaves no trace in a tensor's version, so that DoRA must be told of each step."""
    section = {"name": "dora", "rank": 4}

    def untold(step: Any) -> None:
        step.moved = lambda number: None

    told, stale = Training(model_folder("llama"), "llama", section), Training(model_folder("llama"), "llama", section)
    apart = [abs(one - other) for one, other in zip(told.run(250), stale.run(250, untold), strict=True)]
    assert max(apart) > 100 * CLOSE
