"""Texts of unequal length in one forward pass without padding.

Legend: B texts, T tokens of all texts together, L tokens of the longest, D width, P virtual tokens before each text.

Linear layers see the T real tokens as one row; only attention has to know where a text ends (`attention.py`). An
architecture that does not attend through transformers' interface gets a block mask, and one for which no packed pass
has been seen to equal the texts alone is run padded, or one text at a time where padding too would change a text. All
give the same (T, D).
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from reglaj.models.attention import ATTENTION_NAME, Attention, Texts, register_attention
from reglaj.models.laying import Behind, PadLayout, after_each, before_each, on_device, to_packed
from reglaj.models.prefixed import OVER, Prefix
from reglaj.models.virtual import VirtualTokens

Layout = Literal["packed", "packed-causal", "packed-masked", "packed-masked-causal", "padded", "alone"]
"""`alone` is one text at a time, for what stands beside a text would change it."""
# Position ids, token types and attention of these were read and are tested.
PACKABLE = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "distilbert"})
# Decoders that hand keywords of their forward on to attention and take their positions from `position_ids`.
# Whether a packed pass is right is then seen, not believed: see `choose_layout`.
PACKABLE_DECODERS = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox", "smollm3", "phi3", "olmo", "olmo2", "granite", "gemma",
     "starcoder2", "cohere", "ministral", "helium"}
)  # fmt: skip
PROBE_TOLERANCE = 1e-3
HALF_TOLERANCE = 0.05
_LOCAL = re.compile(r"(sliding|attention)_window|window_size|chunk|local|sparse|block_size|sink|attention_types|alibi")
"""Keys of a config that can mean that a layer does not see all of a text, which a block mask would undo."""
_TURNING = ("dynamic", "longrope")
"""Kinds of rotary positions that turn with the longest text of a pass, once that is longer than the model's first."""


@dataclass(frozen=True, kw_only=True)
class TokenBatch:
    """Some texts as tokens, in the order they were given.

    input_ids: (T,) long. lengths: tokens of each text, B of them. states: (T, D) hidden states that enter the lowest
    trained layer, where they are cached; then the layers below it are not run.
    """

    input_ids: Tensor
    lengths: tuple[int, ...]
    states: Tensor | None = None

    @classmethod
    def of(cls, rows: list[np.ndarray[Any, Any]], device: torch.device | str = "cpu") -> TokenBatch:
        """From one array of token ids per text."""
        flat = on_device(np.concatenate(rows).astype(np.int64), device)
        return cls(input_ids=flat, lengths=tuple(len(row) for row in rows))

    @cached_property
    def positions(self) -> Tensor:
        """(T,) long: they start anew with each text."""
        return _positions(self.lengths, self.input_ids.device)

    @cached_property
    def grid(self) -> PadLayout:
        """The texts laid out as (B, L)."""
        return PadLayout.of(self.lengths, self.input_ids.device)


def _positions(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    return on_device(np.concatenate([np.arange(length) for length in lengths]), device)


def hidden_states(
    model: nn.Module,
    batch: TokenBatch,
    layout: Layout,
    position_offset: int = 0,
    attention: Attention = "by-length",
    virtual: VirtualTokens | None = None,
) -> Tensor:
    """The last hidden state of every token: (T, D), texts one after the other.

    virtual: what stands before each text. It has no states of its own here, and positions of a text start after it.
    """
    if layout in ("padded", "alone"):
        return _padded_states(model, batch, position_offset, virtual)
    lengths, positions = batch.lengths, batch.positions + position_offset
    given: dict[str, Any] = {"input_ids": batch.input_ids[None]}
    embeddings = virtual.embeddings if virtual else None
    behind = Behind(lengths, 0 if embeddings is None else len(embeddings), batch.input_ids.device)
    if embeddings is not None:
        lengths = tuple(len(embeddings) + length for length in lengths)
        positions = _positions(lengths, batch.input_ids.device) + position_offset
        own = _embedded(model, batch.input_ids)
        given = {"inputs_embeds": before_each(own, embeddings.to(own.dtype), behind)[None]}
    prefix = Prefix(virtual) if virtual and virtual.keys_values else None
    given["position_ids"] = positions[None] + (prefix.count if prefix else 0)
    is_causal = layout.endswith("causal")
    if layout.startswith("packed-masked"):
        mask = block_mask(lengths, batch.input_ids.device, is_causal=is_causal)
        output = model(**given, attention_mask=_as_taken(mask, model), **_plain(model), **_keyword(prefix))
    else:
        texts = Texts(lengths, batch.input_ids.device, is_causal=is_causal, attention=attention, prefix=prefix)
        with _Attention(model):
            output = model(**given, texts=texts, **(_plain(model) if is_causal else {}))
    packed: Tensor = output.last_hidden_state[0]
    return packed if embeddings is None else after_each(packed, behind)


def _padded_states(model: nn.Module, batch: TokenBatch, position_offset: int, virtual: VirtualTokens | None) -> Tensor:
    mask = batch.grid.mask
    ids = batch.input_ids.index_select(0, batch.grid.to_grid).view(mask.shape).masked_fill(~mask, 0)
    given: dict[str, Any] = {"input_ids": ids}
    embeddings = virtual.embeddings if virtual else None
    prefix = Prefix(virtual) if virtual and virtual.keys_values else None
    if embeddings is not None:
        own = _embedded(model, ids)
        given = {"inputs_embeds": torch.cat((embeddings.to(own.dtype).expand(len(ids), -1, -1), own), dim=1)}
        mask = torch.cat((mask.new_ones(len(mask), len(embeddings)), mask), dim=1)
    if prefix is not None:
        places = torch.arange(ids.shape[1], device=ids.device)
        given["position_ids"] = (places + position_offset + prefix.count)[None]
    output = model(**given, attention_mask=mask.long(), **_plain(model), **_keyword(prefix))
    states: Tensor = output.last_hidden_state[:, 0 if embeddings is None else len(embeddings) :]
    return to_packed(states.reshape(-1, states.shape[-1]), batch.grid)


def _embedded(model: Any, input_ids: Tensor) -> Tensor:
    """The tokens as the model looks them up, scaled where its embedding scales."""
    embedded: Tensor = model.get_input_embeddings()(input_ids)
    return embedded


def _plain(model: Any) -> dict[str, Any]:
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}


def _keyword(prefix: Prefix | None) -> dict[str, Any]:
    return {} if prefix is None else {"prefix": prefix}


def block_mask(lengths: tuple[int, ...], device: torch.device, *, is_causal: bool) -> Tensor:
    """(1, 1, T, T) bool, true where a token sees another: for architectures that take a mask and nothing else."""
    text = on_device(np.repeat(np.arange(len(lengths)), lengths), device)
    seen = text[:, None] == text[None, :]
    if is_causal:
        seen = seen.tril()
    return seen[None, None]


def _as_taken(mask: Tensor, model: Any) -> Tensor:
    """The mask as the model's attention takes it: bool, or added to the scores."""
    if model.config._attn_implementation in ("sdpa", *OVER.values()):
        return mask
    dtype = next(model.parameters()).dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


class _Attention:
    """The model with our attention inside the block; a context so that a peer may share the model."""

    def __init__(self, model: nn.Module) -> None:
        self.config: Any = model.config

    def __enter__(self) -> None:
        self.before = self.config._attn_implementation, getattr(self.config, "pad_token_id", None)
        self.config._attn_implementation = ATTENTION_NAME
        # Some models look for padding in their input to warn of it, which makes the host wait for the device.
        self.config.pad_token_id = None

    def __exit__(self, *_: object) -> None:
        self.config._attn_implementation, self.config.pad_token_id = self.before


def choose_layout(
    model: nn.Module, model_type: str, position_offset: int, vocabulary: int, context: int = 0
) -> tuple[Layout, str]:
    """The fastest layout in which a pass of several texts equals each alone; with the reason in words.

    context: tokens of the longest text, with the virtual ones before it. The check runs three short rows of fixed
    tokens through the model, without dropout: it costs milliseconds, and a leak between texts or a wrong position shows
    as a difference far above rounding. What short rows cannot show (a window, positions that turn with the longest row)
    is read in the config.
    """
    config: Any = model.config
    if kind := _turns_with_the_longest(config, context):
        return "alone", f"its {kind} positions depend on the longest text of a pass"
    register_attention()
    if model_type in PACKABLE | PACKABLE_DECODERS:
        known: Layout = "packed" if model_type in PACKABLE else "packed-causal"
        problem = _difference(model, known, position_offset, vocabulary)
        if problem is None:
            return known, "a packed pass equals texts alone"
    else:
        problem = f"attention by text is not tested for {model_type!r}"
    if key := _sees_in_part(config):
        return _unpacked(model, vocabulary, f"{problem}, and {key!r} in its config forbids a block mask")
    if "position_ids" not in inspect.signature(model.forward).parameters:
        # It counts by itself, through all texts of a pack, and would run out of places in a long one.
        return _unpacked(model, vocabulary, f"{problem}, and it is not told positions")
    masked: tuple[Layout, ...] = ("packed-masked", "packed-masked-causal")
    differences = {layout: _difference(model, layout, position_offset, vocabulary) for layout in masked}
    fitting = [layout for layout in masked if differences[layout] is None]
    if fitting:
        return fitting[0], f"{problem}; under a block mask a packed pass equals texts alone"
    return _unpacked(model, vocabulary, f"{problem}; under a block mask {differences[masked[0]]}")


def _unpacked(model: nn.Module, vocabulary: int, reason: str) -> tuple[Layout, str]:
    """Padded, unless padding reaches into a text in spite of its mask: through a convolution, say."""
    problem = _difference(model, "padded", 0, vocabulary)
    return ("padded", reason) if problem is None else ("alone", f"{reason}; {problem}")


def varlen_problem(
    model: nn.Module, layout: Layout, position_offset: int, vocabulary: int, virtual: VirtualTokens | None = None
) -> str | None:
    """None where CUDA's variable-length kernel gives what texts alone give, else what is wrong.

    To be called in the precision of training, in which a pass differs by its own rounding.
    """
    settings: dict[str, Any] = {"attention": "varlen", "virtual": virtual}
    return _difference(model, layout, position_offset, vocabulary, tolerance=HALF_TOLERANCE, **settings)


def _difference(
    model: nn.Module,
    layout: Layout,
    position_offset: int,
    vocabulary: int,
    *,
    attention: Attention = "by-length",
    tolerance: float = PROBE_TOLERANCE,
    virtual: VirtualTokens | None = None,
) -> str | None:
    """None where a pass of several texts equals each alone, else what is wrong."""
    way = layout.partition("-")[0]
    generator = np.random.default_rng(0)
    # The upper half of a vocabulary holds words: a padding id among them would move RoBERTa's own positions.
    rows = [generator.integers(vocabulary // 2, vocabulary, size=length) for length in (5, 3, 9)]
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            each = [TokenBatch.of([row], device) for row in rows]
            alone = torch.cat([hidden_states(model, one, "padded", position_offset, virtual=virtual) for one in each])
            together = hidden_states(model, TokenBatch.of(rows, device), layout, position_offset, attention, virtual)
    except Exception as error:
        return f"it cannot be {way}: {(str(error) or type(error).__name__).splitlines()[0]}"
    finally:
        model.train(was_training)
    difference = (together - alone).abs().max().item()
    if not difference <= tolerance * max(alone.abs().max().item(), 1.0):
        return f"a {way} pass differs from texts alone by {difference:.1e}"
    return None


def _sees_in_part(config: Any) -> str | None:
    """The key that speaks of windows, sinks and the like, or None."""
    for key, value in config.to_dict().items():
        has_kinds = key == "layer_types" and set(value or ()) - {"full_attention"}
        if has_kinds or (_LOCAL.search(key) and value not in (None, False, 0, [], {})):
            return str(key)
    return None


def steady_context(config: Any, context: int) -> int:
    """Tokens up to which texts may share a pass: where positions turn with the longest, only the first context."""
    rope = getattr(config, "rope_parameters", None) or {}
    first = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
    return min(context, first or context) if _turns_with_the_longest(config, context) else context


def _turns_with_the_longest(config: Any, context: int) -> str | None:
    """The kind of positions that would make a text's states depend on its neighbours, or None."""
    rope = getattr(config, "rope_parameters", None) or {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        kind = parameters.get("rope_type")
        first = parameters.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
        if kind in _TURNING and context > (first or 0):
            return str(kind)
    return None
