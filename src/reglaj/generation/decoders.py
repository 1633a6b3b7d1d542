"""Next-token logits of many rows: through the store, or row by row with transformers' own cache.

Legend: B rows, T tokens of several prompts together, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reglaj.generation.store import ATTENTION_NAME, KeyValueStore, register_attention, without
from reglaj.models.virtual import VirtualTokens

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
    """All rows in one pass. prefix: what every prompt begins with and none of them is, read once.

    virtual: what stands before every prompt, the prefix included. Their keys and values are those of a first prefix.
    """

    def __init__(self, model: Any, prefix: Sequence[int] = (), virtual: VirtualTokens | None = None) -> None:
        self._model = model
        self._prefix = prefix
        self._virtual = virtual
        self._offset = virtual.count if virtual else 0
        self._device = next(model.parameters()).device
        self._configs = {id(c): c for c in (model.config, model.config.get_text_config())}.values()
        self._is_choosy = _is_choosy(model)
        self._store = KeyValueStore()

    def admit(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        if self._virtual is not None:
            self._begin_with(self._virtual)
            self._virtual = None
        if self._offset + len(self._prefix) > self._store.prefix_length:
            self._prompts([self._prefix], len(self._prefix))
            self._store.keep_prefix(self._store.lengths[0])
        known = self._store.prefix_length - self._offset
        groups = _groups([prompt[known:] for prompt in prompts])
        return torch.cat([self._prompts(group, max_tokens) for group in groups])

    def restart(self, count: int) -> None:
        """Drop the rows; the first `count` tokens that the first one has read begin every prompt to come."""
        self._store.keep_prefix(self._offset + count)
        self._prefix = ()

    def _begin_with(self, virtual: VirtualTokens) -> None:
        if virtual.embeddings is None:
            self._store.set_prefix(keys_by_layer(self._model, virtual))
            return
        places = torch.arange(virtual.count, device=self._device)
        self._store.begin_prompts([virtual.count], virtual.count)
        self._forward(_embedded(self._model, virtual.embeddings), places[None], places[-1:])
        self._store.keep_prefix(virtual.count)

    def _prompts(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        """prompts: without what is known of them. max_tokens: without the virtual ones."""
        known = self._store.prefix_length
        lengths = [len(prompt) for prompt in prompts]
        self._store.begin_prompts([known + length for length in lengths], self._offset + max_tokens)
        tokens = self._tensor([token for prompt in prompts for token in prompt])
        positions = torch.cat([torch.arange(known, known + length, device=self._device) for length in lengths])
        last = self._tensor(lengths).cumsum(0) - 1
        logits = self._forward({"input_ids": tokens[None]}, positions[None], last)[0]
        return logits if len(logits) == len(prompts) else logits[last]

    def step(self, tokens: Sequence[int]) -> Tensor:
        positions = self._tensor(self._store.lengths)[:, None]
        self._store.begin_step(positions)
        return self._forward({"input_ids": self._tensor(tokens)[:, None]}, positions, 0)[:, -1]

    def retire(self, rows: Sequence[int]) -> list[int]:
        return self._store.retire(rows)

    @property
    def layers(self) -> int:
        """How many layers went through the store."""
        return self._store.layers

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long).to(self._device, non_blocking=True)

    def _forward(self, given: dict[str, Tensor], positions: Tensor, keep: Tensor | int) -> Tensor:
        extra = {"logits_to_keep": keep} if self._is_choosy else {}
        with self._attention():
            output = self._model(**given, position_ids=positions, use_cache=False, key_values=self._store, **extra)
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

    def __init__(self, model: Any, virtual: VirtualTokens | None = None) -> None:
        self._model = model
        self._virtual = virtual
        self._device = next(model.parameters()).device
        self._extra = {"logits_to_keep": 1} if _is_choosy(model) else {}
        self._first: Any = None
        """The cache that every row begins with."""
        self._caches: list[Any] = []

    def admit(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Tensor:
        if self._first is None:
            self._first = self._cache(self._virtual)
        caches = [copy.deepcopy(self._first) for _ in prompts]
        self._caches += caches
        return torch.cat([self._forward(prompt, cache) for prompt, cache in zip(prompts, caches, strict=True)])

    def _cache(self, virtual: VirtualTokens | None) -> Any:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        if virtual is not None and virtual.embeddings is not None:
            given = _embedded(self._model, virtual.embeddings)
            self._model(**given, past_key_values=cache, use_cache=True, **self._extra)
        elif virtual is not None:
            dtype = _token_type(self._model)
            for layer, (keys, values) in sorted(keys_by_layer(self._model, virtual).items()):
                cache.update(keys[None].to(dtype), values[None].to(dtype), layer)
        return cache

    def step(self, tokens: Sequence[int]) -> Tensor:
        return torch.cat([self._forward([token], cache) for token, cache in zip(tokens, self._caches, strict=True)])

    def retire(self, rows: Sequence[int]) -> list[int]:
        order = without(len(self._caches), rows)
        self._caches = [self._caches[old] for old in order]
        return order

    def read(self, tokens: Sequence[int]) -> Any:
        """What the model gives for a row of its own, which is not kept."""
        return self._read(tokens, self._cache(self._virtual))

    def _forward(self, tokens: Sequence[int], cache: Any) -> Tensor:
        logits: Tensor = self._read(tokens, cache).logits
        return logits[:, -1].float()

    def _read(self, tokens: Sequence[int], cache: Any) -> Any:
        given = torch.tensor([list(tokens)], device=self._device)
        return self._model(input_ids=given, past_key_values=cache, use_cache=True, **self._extra)


def why_not_cached(model: Any, context: int, virtual: VirtualTokens | None = None) -> str | None:
    """None where the store serves this model, else the reason.

    What a config can tell comes first. Then two short prompts go through the store, with a prefix, packed and with a
    step, and are compared with plain forward passes: a leak, a wrong position or an unknown bias is far above rounding.
    Costs milliseconds. The model must be in evaluation mode, without gradients. virtual: what stands before every
    prompt; both sides then read it, the plain one with transformers' own cache.
    """
    reason = _told_by_config(model.config, context)
    if reason:
        return reason
    register_attention()
    vocabulary = model.config.get_text_config().vocab_size
    rows = [[(vocabulary // 2 + 7 * place + length) % vocabulary for place in range(length)] for length in _PROBE]
    rows = [[*rows[0][:_PROBE_PREFIX], *row] for row in rows]
    alone = _alone(model, rows, virtual)
    try:
        decoder = CachedDecoder(model, rows[0][:_PROBE_PREFIX], virtual)
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


def _alone(model: Any, rows: Sequence[Sequence[int]], virtual: VirtualTokens | None) -> Tensor:
    """The logits after each row by itself: (rows, V), in the model's own type."""
    device = next(model.parameters()).device
    if virtual is None:
        passes = [model(input_ids=torch.tensor([row], device=device), use_cache=False) for row in rows]
    else:
        passes = [PlainDecoder(model, virtual).read(row) for row in rows]
    return torch.cat([output.logits[:, -1] for output in passes])


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


def keys_by_layer(model: Any, virtual: VirtualTokens) -> dict[int, tuple[Tensor, Tensor]]:
    """Learnt keys and values (G, P, H) by the number of their layer.

    Raises `NotImplementedError` where a layer of the model has none: it would see other tokens than in training.
    """
    found: dict[int, tuple[Tensor, Tensor]] = {
        getattr(module, "layer_idx", -1): (keys, values) for module, keys, values in virtual.keys_values
    }
    if sorted(found) != list(range(model.config.get_text_config().num_hidden_layers)):
        raise NotImplementedError("not each of its layers has learnt keys and values")
    return found


def _embedded(model: Any, embeddings: Tensor) -> dict[str, Tensor]:
    """Virtual tokens (P, D) as a text of their own, in the type that a looked-up token has."""
    return {"inputs_embeds": embeddings.to(_token_type(model))[None]}


def _token_type(model: Any) -> torch.dtype:
    dtype: torch.dtype = model.get_input_embeddings().weight.dtype
    return dtype
