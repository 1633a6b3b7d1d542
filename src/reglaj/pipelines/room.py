"""Whether a text and what stands before it are within what a model can read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.errors import Problem

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts

FEWEST_TOKENS = 8
"""Of a text, that virtual tokens must leave room for."""


def no_room(max_tokens: int | None, taken: int, facts: ModelFacts) -> list[Problem]:
    """A text, or what stands before it, that is longer than the model's context. taken: virtual tokens."""
    room = facts.context - taken
    if taken and room < FEWEST_TOKENS:
        return [
            Problem(
                where="method.num_virtual_tokens",
                given=f"{taken}",
                allowed=f"up to {max(0, facts.context - FEWEST_TOKENS)}",
                why=f"{facts.name} reads {facts.context} tokens in all, and virtual ones leave no room for the text",
                remedy="lower it, or choose a model with a longer context",
            )
        ]
    if max_tokens is None or max_tokens <= room:
        return []
    beside = f" beside {taken} virtual tokens" if taken else ""
    return [
        Problem(
            where="train.max_tokens",
            given=f"{max_tokens}{beside}",
            allowed=f"up to {room}",
            why=f"{facts.name} has no positions beyond {facts.context}",
            remedy="lower it, or choose a model with a longer context",
        )
    ]
