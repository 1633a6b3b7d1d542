"""Tiny models of every kind, with handles on them, and what they give: what the conformance suite is made of.

Legend: T tokens of all texts, D width, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.methods.settings import section
from tests.tiny import write_model
from tests.tiny_chat import write_chat_model
from torch import Tensor

from reglaj.core.errors import Problem
from reglaj.methods import METHODS
from reglaj.methods.base import Handle
from reglaj.models import loading
from reglaj.models.attention import Attention
from reglaj.models.inspect import ModelFacts, inspect_model
from reglaj.models.packing import Layout, TokenBatch, choose_layout, hidden_states

TEXTS = [np.array(row) for row in ([2, 7, 9, 11, 3], [2, 20, 3], [2, 5, 6, 7, 8, 9, 10, 3])]
TARGETS = [np.array(row) for row in ([0, 31, 8], [0, 9, 4, 77, 12], [0, 5])]
"""Of an encoder-decoder, for each text."""
CAUSAL = frozenset({"llama", "gpt2"})


def load(folder: Path) -> tuple[Any, ModelFacts]:
    """A model of any kind without its output matrix."""
    facts = inspect_model(str(folder), folder=Path())
    return loading.load_backbone(facts), facts


def attach(name: str, folder: Path, seed: int = 0) -> tuple[Handle, ModelFacts]:
    """A method with its suite's settings on a model without its output matrix."""
    model, facts = load(folder)
    torch.manual_seed(seed)
    method = METHODS.get(name)
    return method.attach(method.config_type(**section(name)), model, facts), facts


def outputs(handle: Handle, facts: ModelFacts) -> Tensor:
    """(T, D) of the texts, as the model is at the moment."""
    layout, _ = choose_layout(handle.model, facts.model_type, facts.position_offset, 120)
    return hidden_states(handle.model, TokenBatch.of(TEXTS), layout, facts.position_offset, **_virtual(handle))


def _virtual(handle: Handle | None) -> dict[str, Any]:
    virtual = handle.virtual() if handle is not None and handle.is_on else None
    return {} if virtual is None else {"virtual": virtual}


def move(handle: Handle, facts: ModelFacts, look: Callable[[], Tensor] | None = None, steps: int = 2) -> None:
    """Optimizer steps towards something: two, for where one factor is zero the other has no gradient at first.

    The sum of outputs would not do: after a norm it hardly depends on anything.
    """
    look = look or (lambda: outputs(handle, facts))
    parameters = [p for group in handle.parameters().values() for _, p in group]
    for step in range(1, steps + 1):
        handle.model.zero_grad()
        if not parameters:
            continue
        found = look()
        loss = (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))).sum()
        penalty = handle.penalty()
        (loss if penalty is None else loss + penalty).backward()
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter -= 1e-2 * parameter.grad / (parameter.grad.norm() + 1e-6)
        handle.after_step(step)


class Subject:
    """A kind of model, and everything that tests want of it. Models are copied, for loading takes longer."""

    def __init__(self, family: str, folder: Path) -> None:
        self.family = family
        self.folder = folder
        self.facts = inspect_model(str(folder), folder=Path())
        self._bases: dict[Any, Any] = {}
        self._layout: Layout | None = None

    def base(self, case: str) -> Any:
        """The model as the case's method wants it to lie in memory, untouched."""
        method = METHODS.get(section(case)["name"])
        storage = method.storage(method.config_type(**section(case)))
        if storage not in self._bases:
            kind = "load_seq2seq" if self.facts.is_encoder_decoder else "load_causal"
            loader = getattr(loading, kind if self.family in (*CAUSAL, "t5") else "load_backbone")
            self._bases[storage] = loader(self.facts, **({"storage": storage} if storage else {}))
        return self._bases[storage]

    def model(self, case: str) -> Any:
        """A copy to work on."""
        return copy.deepcopy(self.base(case))

    def look(self, model: Any, *handles: Handle, texts: Any = TEXTS, attention: Attention = "per-text") -> Tensor:
        """What the model gives for each token: hidden states (T, D), or scores (T, V) where it has an output matrix."""
        on = next((handle for handle in handles if handle.is_on), None)
        if self.facts.is_encoder_decoder:
            return self._answers(model, on)
        if self._layout is None:
            base = next(iter(self._bases.values())).base_model
            self._layout, _ = choose_layout(base, self.facts.model_type, self.facts.position_offset, 100)
        tokens = TokenBatch.of(texts)
        offset = self.facts.position_offset
        hidden = hidden_states(model.base_model, tokens, self._layout, offset, attention, **_virtual(on))
        matrix = model.get_output_embeddings()
        return hidden if matrix is None else matrix(hidden)

    def _answers(self, model: Any, on: Handle | None) -> Tensor:
        """(T, V) scores of the targets' tokens."""
        from reglaj.models.seq2seq import seq2seq_logits

        return seq2seq_logits(model, TokenBatch.of(TEXTS), TokenBatch.of(TARGETS), **_virtual(on))

    @cache  # noqa: B019 - a subject lives as long as its module
    def expected(self, case: str) -> Tensor:
        """What the base gives."""
        with torch.no_grad():
            return self.look(self.base(case))

    def problems(self, case: str) -> list[Problem]:
        """Why this model cannot have the method."""
        method = METHODS.get(section(case)["name"])
        return method.check(method.config_type(**section(case)), self.facts)

    def attach(self, case: str, model: Any = None, name: str = "default", seed: int = 0) -> Handle:
        """A handle on a fresh model, or on the one that is given, as training would begin. Skips what is refused."""
        if self.problems(case):
            pytest.skip(f"{case} refuses {self.family}")
        method = METHODS.get(section(case)["name"])
        model = self.model(case) if model is None else model
        torch.manual_seed(seed)
        handle = method.attach(method.config_type(**section(case)), model, self.facts, name)
        handle.begin(100)
        return handle

    def moved(self, case: str, model: Any = None, name: str = "default", seed: int = 0) -> Handle:
        """A handle that has learnt something."""
        handle = self.attach(case, model, name, seed)
        move(handle, self.facts, lambda: self.look(handle.model, handle))
        return handle


def write_subject(family: str, folder: Path) -> Subject:
    """The subject of a family, written into a folder."""
    if family in CAUSAL:
        write_chat_model(folder, family)
    else:
        write_model(folder, family.removesuffix("-trunk"))
    return Subject(family, folder)
