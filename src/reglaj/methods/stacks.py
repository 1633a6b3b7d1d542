"""Which layers a method means where it is told `layers`: in a model of one stack of layers, or of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts


def chosen_layers(layers: int | tuple[int, ...] | None, facts: ModelFacts) -> list[tuple[int, ...]]:
    """Numbers of the layers of each stack, ascending: the upper N, those that are named, or with None all.

    An encoder-decoder has two stacks, the encoder's first, and the key speaks of each of them.
    """
    counts = [facts.layers, facts.decoder_layers] if facts.is_encoder_decoder else [facts.layers]
    if layers is None:
        return [tuple(range(count)) for count in counts]
    if isinstance(layers, int):
        return [tuple(range(max(0, count - layers), count)) for count in counts]
    return [tuple(sorted(set(layers) & set(range(count)))) for count in counts]


def lowest_of(chosen: list[tuple[int, ...]]) -> int:
    """The lowest layer that is meant; 0 where there are two stacks, for a decoder's gradient runs through both."""
    return min(chosen[0], default=0) if len(chosen) == 1 else 0
