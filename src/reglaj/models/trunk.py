"""A stock trunk in two parts: the frozen layers below one, run once, and that one with all above, run at every step.

Legend: B texts, T tokens of all of them, L tokens of the longest, D width.

The model itself is called in both cases, with its own embeddings, masks and positions. What belongs to the other part
hands on what it is given: below the cut the last layer gives the kept states instead, so that the lowest trained layer
meets them as its argument (which is also what a checkpointed layer remembers). Nothing here knows an architecture:
whether both parts together equal the whole is seen on short rows, not believed; see `choose_cut`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reglaj.models.laying import on_device
from reglaj.models.packing import PROBE_TOLERANCE, TokenBatch

Run = Callable[[TokenBatch], Tensor]
"""The whole pass of a trunk: last hidden states (T, D)."""
_NUM_DRAWS = 3


@dataclass(frozen=True)
class RowStates:
    """States of many rows, as they lie in a file.

    values: (states, D), bfloat16 as int16. starts, counts: (rows,) where each row's begin and how many there are: one a
    token, or a single one that stands for the whole text.
    """

    values: np.ndarray[Any, Any]
    starts: np.ndarray[Any, np.dtype[np.int64]]
    counts: np.ndarray[Any, np.dtype[np.int64]]
    dtype: torch.dtype

    def of(self, rows: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """The states of these rows, one after the other."""
        starts, ends = self.starts[rows].tolist(), (self.starts[rows] + self.counts[rows]).tolist()
        pieces = [self.values[start:end] for start, end in zip(starts, ends, strict=True)]
        return on_device(np.concatenate(pieces), device).view(self.dtype)


def single_texts(batch: TokenBatch) -> list[TokenBatch]:
    """A batch as batches of one text each, states included."""
    texts = batch.input_ids.split(batch.lengths)
    states: Sequence[Tensor | None] = [None] * len(texts)
    if batch.states is not None:
        # One a token, or one a text. Where both are as many, every text has one token, and it is the same.
        is_per_token = len(batch.states) == len(batch.input_ids)
        states = batch.states.split(batch.lengths if is_per_token else 1)
    return [
        TokenBatch(input_ids=text, lengths=(len(text),), states=own) for text, own in zip(texts, states, strict=True)
    ]


class TrunkCut:
    """The layers of a trunk in two parts. layer: the first of the upper one, at least 1."""

    def __init__(self, layers: Sequence[nn.Module], layer: int) -> None:
        self.layer = layer
        self.lower, self.upper = list(layers[:layer]), list(layers[layer:])
        self._others: int | None = None
        """What a layer returns beside hidden states; None where it returns them bare."""

    def lower_states(self, batch: TokenBatch, run: Run) -> Tensor:
        """What enters the upper part: (T, D). Raises `ValueError` where that cannot be told."""
        found: list[Tensor] = []
        last = self.lower[-1]
        own: Callable[..., Any] = last.forward

        def leave(*args: Any, **options: Any) -> Any:
            output = own(*args, **options)
            self._others = len(output) - 1 if isinstance(output, tuple) else None
            found.append(output[0] if isinstance(output, tuple) else output)
            return output

        with _forward_is([last], leave), _forward_is(self.upper, self._hand_on):
            run(batch)
        if len(found) != 1:
            raise ValueError(f"a layer ran {len(found)} times in one pass")
        return _as_rows(found[0], batch)

    @contextlib.contextmanager
    def entering(self, batch: TokenBatch) -> Iterator[None]:
        """The trunk begins with `batch.states` inside: a pass runs the upper part alone."""
        states = batch.states
        assert states is not None

        def enter(*args: Any, **options: Any) -> Any:
            return self._as_output(_as_entered(states, batch, _first(args, options)))

        with _forward_is(self.lower[:-1], self._hand_on), _forward_is(self.lower[-1:], enter):
            yield

    def _hand_on(self, *args: Any, **options: Any) -> Any:
        return self._as_output(_first(args, options))

    def _as_output(self, hidden: Tensor) -> Any:
        return hidden if self._others is None else (hidden, *[None] * self._others)


@contextlib.contextmanager
def _forward_is(modules: Sequence[nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Another forward on the modules themselves; their attributes, hooks and parameters stay."""
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.__dict__["forward"] = forward
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


def _first(args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """The hidden states that a layer is called with: its first argument, by whatever name."""
    hidden: Tensor = args[0] if args else next(iter(options.values()))
    return hidden


def _as_rows(states: Tensor, batch: TokenBatch) -> Tensor:
    """(1, T, D) or a padded (B, L, D) to (T, D)."""
    if states.shape[:2] == (1, len(batch.input_ids)):
        return states[0]
    if states.shape[:2] != batch.grid.mask.shape:
        raise ValueError(f"layers see states of the shape {tuple(states.shape)}")
    return states.flatten(0, 1).index_select(0, batch.grid.to_packed)


def _as_entered(states: Tensor, batch: TokenBatch, like: Tensor) -> Tensor:
    """(T, D) in the form in which the layers see theirs: (1, T, D), or padded to (B, L, D)."""
    if like.shape[:2] == (1, len(states)):
        return states[None]
    return states.index_select(0, batch.grid.to_grid).view(*like.shape[:2], states.shape[-1])


def find_layers(trunk: nn.Module) -> Sequence[nn.Module] | None:
    """The one list of as many layers as the config has, or None where there is none or more than one."""
    found: dict[str, nn.ModuleList] = {}
    count = getattr(getattr(trunk, "config", None), "num_hidden_layers", None)
    for name, module in trunk.named_modules():
        is_inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, nn.ModuleList) and len(module) == count and not is_inside:
            found[name] = module
    return list(next(iter(found.values()))) if len(found) == 1 else None


def choose_cut(trunk: nn.Module, layer: int, run: Run, vocabulary: int) -> tuple[TrunkCut | None, str]:
    """The trunk cut below `layer` where both parts together equal the whole; else None with the reason in words.

    run: the whole pass, as training makes it, without dropout and gradients; three short rows go through it.
    """
    layers = find_layers(trunk)
    if layers is None or not 0 < layer < len(layers):
        return None, "the model's layers do not lie in one list"
    upper = {id(p) for module in layers[layer:] for p in module.parameters()}
    learns_outside = any(p.requires_grad and id(p) not in upper for p in trunk.parameters())
    cut, batch = TrunkCut(layers, layer), probe_batch(vocabulary, next(trunk.parameters()).device)
    try:
        if learns_outside and _learns_below(cut, run, vocabulary):
            return None, "something outside of the upper layers learns"
        states = cut.lower_states(batch, run)
        whole = run(batch)
        with cut.entering(TokenBatch(input_ids=batch.input_ids, lengths=batch.lengths, states=states)):
            parts = run(batch)
    except Exception as error:  # an architecture never seen may fail in any way, and then it is run whole
        return None, f"its layers cannot be run by themselves ({type(error).__name__}: {error})"
    difference = (parts.float() - whole.float()).abs().max().item()
    if not difference <= PROBE_TOLERANCE * max(whole.abs().max().item(), 1.0):
        return None, f"the layers from {layer} on with kept states differ from the whole by {difference:.1e}"
    return cut, "both parts together equal the whole"


def _learns_below(cut: TrunkCut, run: Run, vocabulary: int) -> bool:
    """Whether what learns outside of the upper layers reaches the states. The norm above the last layer does not."""
    with torch.inference_mode(False), torch.enable_grad():
        return cut.lower_states(probe_batch(vocabulary, next(cut.lower[0].parameters()).device), run).requires_grad


def is_random_below(cut: TrunkCut, run: Run, training_run: Run, vocabulary: int) -> bool:
    """Whether dropout reaches below the cut. run, training_run: the whole pass in evaluation and in training mode.

    Seen rather than looked up, for a probability may be in a module, in the config or in a keyword. Draws leave no
    trace: the generators are afterwards where they were.
    """
    batch = probe_batch(vocabulary, next(cut.lower[0].parameters()).device)
    expected = cut.lower_states(batch, run)
    with torch.random.fork_rng():
        return any(not torch.equal(expected, cut.lower_states(batch, training_run)) for _ in range(_NUM_DRAWS))


def probe_batch(vocabulary: int, device: torch.device) -> TokenBatch:
    """Three short rows of fixed tokens, from the half of a vocabulary that holds words."""
    generator = np.random.default_rng(1)
    rows = [generator.integers(vocabulary // 2, vocabulary, size=length) for length in (7, 4, 11)]
    return TokenBatch.of(rows, device)
