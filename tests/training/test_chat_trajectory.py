"""Promise 4 for decoders: a packed step is its conversations alone, summed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny_chat import write_chat_model
from tests.training.chat_harness import Rows, learner_for, supervise
from transformers import AttentionInterface

from reglaj.data.batching import micro_batches
from reglaj.models import packing
from reglaj.models.attention import ATTENTION_NAME, Texts, packed_attention
from reglaj.models.packing import TokenBatch, register_attention
from reglaj.training.engine import choose_engine
from reglaj.training.fit import build_step

BUDGET = 10_000
FAMILIES = ["llama", "qwen2", "mistral", "gpt2"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: write_chat_model(tmp_path_factory.mktemp(family), family) for family in FAMILIES}


class Measured:
    """Loss and gradient of one step over all rows, cut in one way or another."""

    def __init__(
        self,
        folder: Path,
        method: str = "full",
        *,
        budget: int = BUDGET,
        layout: str | None = None,
        spare: bool = False,
        count: int = 24,
    ) -> None:
        assembled = learner_for(folder, method)
        learner = assembled.learner
        self.layout = learner.engine.layout
        if layout:
            learner.engine = choose_engine(assembled.recipe.train, "cpu", layout, "")  # type: ignore[arg-type]
        if method == "lora":  # B is zero at the start, and then A has no gradient: give it one
            with torch.no_grad():
                for key, parameter in learner.handle.parameters()["lora"]:
                    if "lora_B" in key:
                        parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
        if spare:
            learner.checkpoint_gradients()
        supervision, encoded = supervise(assembled, Rows(count))
        step = build_step(learner, supervision, assembled.recipe.train)
        groups = micro_batches(range(len(encoded)), encoded.rows.lengths, budget, is_padded=learner.engine.is_padded)
        self.num_groups, self.num_layer_passes = len(groups), 0
        layer = next(m for m in learner.backbone.modules() if isinstance(m, torch.nn.ModuleList))[0]
        # On a part of the layer: hooks of the layer itself stay outside of what checkpointing repeats.
        next(layer.children()).register_forward_pre_hook(self._count)
        learner.train()
        self.loss = step.accumulate([supervision.load(group) for group in groups]).item()
        named = [pair for group in learner.handle.parameters().values() for pair in group]
        self.gradients = {key: p.grad.clone() for key, p in named}

    def _count(self, *_: Any) -> None:
        self.num_layer_passes += 1

    def distance(self, other: Measured) -> tuple[float, float]:
        """The largest difference of loss and of any gradient."""
        assert self.gradients.keys() == other.gradients.keys() and self.gradients
        each = [(g - other.gradients[key]).abs().max().item() for key, g in self.gradients.items()]
        return abs(self.loss - other.loss), max(each)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_packed_equals_alone(folders: dict[str, Path], family: str, method: str) -> None:
    packed = Measured(folders[family], method)
    assert packed.layout == "packed-causal" and packed.num_groups == 1
    for budget, layout in [
        (1, None),
        (200, None),
        (1, "padded"),
        (BUDGET, "padded"),
        (BUDGET, "packed-masked-causal"),
    ]:
        other = Measured(folders[family], method, budget=budget, layout=layout)
        assert other.num_groups > 1 or budget == BUDGET
        loss, gradient = packed.distance(other)
        assert loss < 1e-5 and gradient < 1e-5, (budget, layout, loss, gradient)


@pytest.fixture(params=["attention", "positions"])
def leak(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Packing gone wrong: texts see each other, or positions run on from one to the next."""

    def one_text(module: Any, query: Any, key: Any, value: Any, mask: Any, **options: Any) -> Any:
        texts = Texts((query.shape[2],), query.device, is_causal=True)
        return packed_attention(module, query, key, value, mask, **{**options, "texts": texts})

    if request.param == "attention":
        AttentionInterface.register(ATTENTION_NAME, one_text)
        monkeypatch.setattr(packing, "register_attention", lambda: None)
    else:
        monkeypatch.setattr(TokenBatch, "positions", property(lambda batch: torch.arange(len(batch.input_ids))))
    yield
    register_attention()


def test_a_leak_would_be_seen(folders: dict[str, Path], leak: None) -> None:
    """The comparison above can fail, and by a wide margin."""
    # GPT-2 looks positions up; rotary ones are relative and would forgive the shift.
    leaking, alone = (Measured(folders["gpt2"], budget=b, layout="packed-causal", count=3) for b in (BUDGET, 1))
    loss, gradient = leaking.distance(alone)
    assert loss > 1e-3 and gradient > 1e-3


def test_the_engine_looks_before_it_packs(folders: dict[str, Path], leak: None) -> None:
    engine = learner_for(folders["gpt2"], "full").learner.engine
    assert engine.layout != "packed-causal" and "differs" in engine.layout_reason


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpointing_gives_the_same_gradient(folders: dict[str, Path], method: str) -> None:
    plain, sparing = Measured(folders["llama"], method), Measured(folders["llama"], method, spare=True)
    assert (plain.num_layer_passes, sparing.num_layer_passes) == (1, 2), "each layer is computed again"
    assert max(plain.distance(sparing)) < 1e-6
