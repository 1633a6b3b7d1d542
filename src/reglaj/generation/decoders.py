"""Next-token logits of many rows: through the store, or row by row with transformers' own cache.

Legend: B rows, T tokens of several prompts together, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reglaj.generation.store import ATTENTION_NAME, KeyValueStore, register_attention, without

PROMPT_TOKENS = 4096
"""Prompt tokens of one forward pass: larger ones bring nothing, and cost memory."""
PROBE_TOLERANCE = 1e-3
_PROBE = (7, 4)
_PROBE_PREFIX = 2


class Decoder(ABC):
    """Rows that grow by a token at a time. A row is named by its place; new rows come last."""

    @abstractmethod
    def admit(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        """Take in prompts as new rows. Returns the logits after each: (prompts, V) float32.

        max_tokens: what the longest of all rows, old and new, can come to.
        """

    @abstractmethod
    def step(self, tokens: Sequence[int]) -> Tensor:
        """Append a token to every row. Returns the logits after it: (B, V) float32."""

    @abstractmethod
    def retire(self, rows: Sequence[int]) -> list[int]:
        """Drop rows. Returns which old row each of those that stay was."""


class CachedDecoder(Decoder):
    """All rows in one pass. prefix: what every prompt begins with and none of them is, read once."""

    def __init__(self, model: Any, prefix: Sequence[int] = ()) -> None:
        self._model = model
        self._prefix = prefix
        self._device = next(model.parameters()).device
        self._configs = {id(c): c for c in (model.config, model.config.get_text_config())}.values()
        self._is_choosy = _is_choosy(model)
        self._store = KeyValueStore()

    def admit(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        if len(self._prefix) > self._store.prefix_length:
            self._prompts([self._prefix], len(self._prefix))
            self._store.keep_prefix(len(self._prefix))
        known = self._store.prefix_length
        groups = _groups([prompt[known:] for prompt in prompts])
        return torch.cat([self._prompts(group, max_tokens) for group in groups])

    def restart(self, count: int) -> None:
        """Drop the rows; the first `count` tokens that the first one has read begin every prompt to come."""
        self._store.keep_prefix(count)
        self._prefix = ()

    def _prompts(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        """prompts: without what is known of them."""
        known = self._store.prefix_length
        lengths = [len(prompt) for prompt in prompts]
        self._store.begin_prompts([known + length for length in lengths], max_tokens)
        tokens = self._tensor([token for prompt in prompts for token in prompt])
        positions = torch.cat([torch.arange(known, known + length, device=self._device) for length in lengths])
        last = self._tensor(lengths).cumsum(0) - 1
        logits = self._forward(tokens[None], positions[None], last)[0]
        return logits if len(logits) == len(prompts) else logits[last]

    def step(self, tokens: Sequence[int]) -> Tensor:
        positions = self._tensor(self._store.lengths)[:, None]
        self._store.begin_step(positions)
        return self._forward(self._tensor(tokens)[:, None], positions, 0)[:, -1]

    def retire(self, rows: Sequence[int]) -> list[int]:
        return self._store.retire(rows)

    @property
    def layers(self) -> int:
        """How many layers went through the store."""
        return self._store.layers

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long).to(self._device, non_blocking=True)

    def _forward(self, tokens: Tensor, positions: Tensor, keep: Tensor | int) -> Tensor:
        extra = {"logits_to_keep": keep} if self._is_choosy else {}
        with self._attention():
            output = self._model(
                input_ids=tokens, position_ids=positions, use_cache=False, key_values=self._store, **extra
            )
        logits: Tensor = output.logits
        return logits.float()

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        """The model with our attention inside the block, so that a peer may share the model."""
        before = [(config, config._attn_implementation) for config in self._configs]
        try:
            for config, _ in before:
                config._attn_implementation = ATTENTION_NAME
            yield
        finally:
            for config, was in before:
                config._attn_implementation = was


class PlainDecoder(Decoder):
    """Each row by itself, as transformers does it: for architectures that the store does not serve."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._extra = {"logits_to_keep": 1} if _is_choosy(model) else {}
        self._caches: list[Any] = []

    def admit(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        from transformers import DynamicCache

        caches = [DynamicCache(config=self._model.config) for _ in prompts]
        self._caches += caches
        return torch.cat([self._forward(prompt, cache) for prompt, cache in zip(prompts, caches, strict=True)])

    def step(self, tokens: Sequence[int]) -> Tensor:
        return torch.cat([self._forward([token], cache) for token, cache in zip(tokens, self._caches, strict=True)])

    def retire(self, rows: Sequence[int]) -> list[int]:
        order = without(len(self._caches), rows)
        self._caches = [self._caches[old] for old in order]
        return order

    def _forward(self, tokens: Sequence[int], cache: Any) -> Tensor:
        output = self._model(
            input_ids=torch.tensor([list(tokens)], device=self._device),
            past_key_values=cache,
            use_cache=True,
            **self._extra,
        )
        logits: Tensor = output.logits
        return logits[:, -1].float()


def why_not_cached(model: Any, context: int) -> str | None:
    """None where the store serves this model, else the reason.

    What a config can tell comes first. Then two short prompts go through the store, with a prefix, packed and with a
    step, and are compared with plain forward passes: a leak, a wrong position or an unknown bias is far above rounding.
    Costs milliseconds. The model must be in evaluation mode, without gradients.
    """
    reason = _told_by_config(model.config, context)
    if reason:
        return reason
    register_attention()
    vocabulary = model.config.get_text_config().vocab_size
    rows = [[(vocabulary // 2 + 7 * place + length) % vocabulary for place in range(length)] for length in _PROBE]
    rows = [[*rows[0][:_PROBE_PREFIX], *row] for row in rows]
    device = next(model.parameters()).device
    alone = torch.cat(
        [model(input_ids=torch.tensor([row], device=device), use_cache=False).logits[:, -1] for row in rows]
    )
    try:
        decoder = CachedDecoder(model, rows[0][:_PROBE_PREFIX])
        decoder.admit([row[:-1] for row in rows], max(map(len, rows)))
        together = decoder.step([row[-1] for row in rows])
    except Exception as error:
        return str(error) or type(error).__name__
    if decoder.layers != model.config.get_text_config().num_hidden_layers:
        return "its layers do not attend through transformers' attention interface"
    difference = (together - alone.float()).abs().max().item()
    scale = max(alone.float().abs().max().item(), 1.0)
    # A pass in half precision differs by its own rounding.
    tolerance = PROBE_TOLERANCE if alone.dtype == torch.float32 else 0.1
    if not difference <= tolerance * scale:
        return f"its logits through the store differ by {difference:.1e}"
    return None


def _told_by_config(config: Any, context: int) -> str | None:
    """What two short prompts cannot show."""
    text = config.get_text_config()
    strange = set(getattr(text, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if strange or getattr(text, "attention_chunk_size", None):
        return f"it has layers of the kind {(sorted(strange) or ['chunked_attention'])[0]!r}"
    rope = getattr(text, "rope_parameters", None) or {}
    every = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    for parameters in every:
        if parameters.get("rope_type") not in ("dynamic", "longrope"):
            continue
        # These turn with the longest row of a pass, so an answer would depend on what stands beside it.
        if context > (parameters.get("original_max_position_embeddings") or text.max_position_embeddings):
            return f"its {parameters['rope_type']} positions depend on the longest row of a pass"
    return None


def _groups(prompts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    """The prompts in order, cut into passes of at most `PROMPT_TOKENS` (a longer prompt is a pass of its own)."""
    group: list[Sequence[int]] = []
    tokens = 0
    for prompt in prompts:
        if group and tokens + len(prompt) > PROMPT_TOKENS:
            yield group
            group, tokens = [], 0
        group.append(prompt)
        tokens += len(prompt)
    if group:
        yield group


def _is_choosy(model: Any) -> bool:
    """Whether the vocabulary projection can be had only where logits are wanted; else it is everywhere."""
    return "logits_to_keep" in inspect.signature(model.forward).parameters
