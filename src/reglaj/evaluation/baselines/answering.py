"""Baselines of answers: ways to get more out of the untouched model without training it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from reglaj.data.conversation import Conversation
from reglaj.evaluation.baselines.base import Baseline

if TYPE_CHECKING:
    from reglaj.data.conversation import Message

Exchange = tuple["Message", "Message"]
"""What a user said, and the answer to it."""


@dataclass(frozen=True, kw_only=True)
class AnswerBaselineData:
    """The training part, of which it may show `examples` exchanges; None where there is no such part at hand."""

    train: Sequence[Conversation] | None
    examples: int
    seed: int


class AnswerBaseline(Baseline):
    """The untouched model with something in front of each question."""

    needs_training_rows: ClassVar[bool] = False

    @abstractmethod
    def exchanges(self, data: AnswerBaselineData) -> list[Exchange]:
        """What is put in front of every test conversation, the same for all. What does not fit is cut from the end."""


def in_front(exchanges: Sequence[Exchange], conversation: Conversation) -> Conversation:
    """The conversation with the exchanges before its first turn, after its own system prompt."""
    messages = conversation.messages
    opening = messages[:1] if messages and messages[0]["role"] == "system" else ()
    shown = tuple(message for exchange in exchanges for message in exchange)
    return Conversation((*opening, *shown, *messages[len(opening) :]), conversation.tools)
