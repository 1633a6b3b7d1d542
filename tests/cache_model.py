"""The smallest language model that can be trained, prompted and asked: words, counted.

The probability of a word is a mixture of how often it stands in the answers it was trained on, of how often it stood
before in the same conversation (a cache, so that examples in the prompt help), and of any word at all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from reglaj.core.console import SILENT, Console
from reglaj.data.conversation import BrokenRecord, Conversation
from reglaj.data.examples import Examples
from reglaj.tasks.answering import Answerer

END = "<end>"
VOCABULARY = 1000
FILLERS = ["when", "is", "my", "the", "please", "where", "tell", "me", "about"]
TOPICS = {
    "cardul": "Cardul sosește în trei zile lucrătoare, vă rugăm să așteptați.",
    "transfer": "A transfer takes three days. Please wait, and write to us if it is not there by then.",
    "fee": "The fee is two per cent of the amount, and nothing at all below one hundred.",
    "refund": "We send the refund to the card that you paid with.",
}


@dataclass(frozen=True)
class Said:
    text: str
    ended: str


def conversation(question: str, answer: str, system: str | None = None) -> Conversation:
    opening = [{"role": "system", "content": system}] if system else []
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation.of([*opening, *turns])


def conversations(count: int, seed: int = 0, system: str | None = None) -> list[Conversation]:
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        topic = list(TOPICS)[generator.integers(len(TOPICS))]
        words = generator.choice(FILLERS, generator.integers(1, 7))
        found.append(conversation(f"{' '.join(words)} {topic} {number}?", TOPICS[topic], system))
    return found


def examples(rows: Sequence[Conversation]) -> Examples:
    return Examples(
        pa.table(
            {
                "id": [f"r{i}" for i in range(len(rows))],
                "source": ["rows.jsonl"] * len(rows),
                "line": list(range(1, len(rows) + 1)),
                "conversation": [row.to_json() for row in rows],
            }
        )
    )


class CacheModel:
    """train: what it learnt from. on: `answers`, or `last_answer` alone. context: words that it can read."""

    def __init__(self, train: Sequence[Conversation], *, on: str = "answers", context: int = 10_000) -> None:
        self.on, self.context = on, context
        self.learnt = Counter(word for row in train for word in [*row.last_answer.split(), END])
        self.memory = [(set(row.questions[-1].split()), row.last_answer) for row in train]
        self.asked: list[tuple[str, str | None, int]] = []

    def pieces(self, row: Conversation) -> list[tuple[str, bool]]:
        if any(message["content"] == "unrenderable" for message in row.messages):
            raise BrokenRecord("broken_turns", "cannot be rendered")
        found, last = [], max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")
        for place, message in enumerate(row.messages):
            is_learnt = message["role"] == "assistant" and (self.on == "answers" or place == last)
            found.append((f"<{message['role']}>\n", False))
            found += [(f"{word} ", is_learnt) for word in message["content"].split()]
            found += [(END, is_learnt), ("\n", False)]
        return found

    def token_losses(self, rows: Sequence[Conversation], model: str | None, console: Console = SILENT):
        self.asked.append(("losses", model, len(rows)))
        nll, tokens = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
        for i, row in enumerate(rows):
            pieces = self.pieces(row)
            if len(pieces) > self.context:
                continue
            seen: Counter[str] = Counter()
            for piece, is_learnt in pieces:
                if is_learnt:
                    nll[i] -= math.log(self._probability(piece.strip(), seen, model))
                    tokens[i] += 1
                seen[piece.strip()] += 1
        return nll, tokens

    def _probability(self, word: str, seen: Counter[str], model: str | None) -> float:
        cache = seen[word] / seen.total() if seen else 0.0
        if model is not None:
            return 0.2 * cache + 0.8 / VOCABULARY
        return 0.2 * cache + 0.6 * self.learnt[word] / max(1, self.learnt.total()) + 0.2 / VOCABULARY

    def generate(self, rows: Sequence[Conversation], model: str | None, console: Console = SILENT) -> list[Said]:
        self.asked.append(("answers", model, len(rows)))
        assert all(row.messages[-1]["role"] == "user" for row in rows)
        if model is not None:
            return [Said(" ".join([row.questions[-1]] * 6), "length") for row in rows]
        return [Said(max(self.memory, key=lambda one: len(one[0] & words))[1], "end") for words in map(_words, rows)]

    def answerer(self) -> Answerer:
        return Answerer(token_losses=self.token_losses, generate=self.generate, render_spans=self.pieces)


def _words(row: Conversation) -> set[str]:
    return set(row.questions[-1].split())
