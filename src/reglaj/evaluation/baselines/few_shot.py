"""The untouched model with a few training examples in its prompt: what prompting does without training.

Brown et al. 2020, "Language Models are Few-Shot Learners", section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from reglaj.evaluation.baselines import BASELINES
from reglaj.evaluation.baselines.answering import AnswerBaseline, AnswerBaselineData, Exchange

if TYPE_CHECKING:
    from reglaj.data.conversation import Conversation

_CANDIDATES = 16
"""Exchanges that are drawn for each one that is shown; the shortest are shown, so that they fit into the context."""


@BASELINES.register("few_shot")
class FewShot(AnswerBaseline):
    """Examples as turns of the conversation: question, answer, question, answer, and then the question itself.

    They are the shortest of a seeded sample, the shortest first, and without calls of tools, which a conversation
    with other tools could not show. No example is shown twice.
    """

    title = "untouched model with examples"
    summary = "the model before any training, with some training examples as turns in front of each question"
    needs_training_rows = True

    def exchanges(self, data: AnswerBaselineData) -> list[Exchange]:
        import numpy as np

        every = list(_last_exchanges(data.train or ()))
        drawn = np.random.default_rng(data.seed).permutation(len(every))[: data.examples * _CANDIDATES]
        return sorted((every[place] for place in sorted(drawn)), key=_length)[: data.examples]


def _last_exchanges(conversations: Sequence[Conversation]) -> Iterator[Exchange]:
    """The last question and answer of each conversation, in plain text; equal ones once."""
    seen = set()
    for conversation in conversations:
        if len(conversation.messages) < 2:
            continue
        question, answer = conversation.messages[-2:]
        is_plain = question["role"] == "user" and answer["role"] == "assistant" and not answer.get("tool_calls")
        texts = (str(question["content"]), str(answer["content"]))
        if is_plain and all(text.strip() for text in texts) and texts not in seen:
            seen.add(texts)
            yield {"role": "user", "content": texts[0]}, {"role": "assistant", "content": texts[1]}


def _length(exchange: Exchange) -> int:
    return sum(len(str(message["content"])) for message in exchange)
