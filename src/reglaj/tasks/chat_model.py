"""Why a model cannot be taught to answer, told from its files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from reglaj.core.errors import Problem

if TYPE_CHECKING:
    from reglaj.models.inspect import ModelFacts


def model_problems(facts: ModelFacts) -> list[Problem]:
    """Not a decoder; or a vocabulary that has outgrown the model."""
    if facts.is_encoder_decoder or not facts.is_decoder:
        kind = "an encoder-decoder" if facts.is_encoder_decoder else "an encoder"
        return [
            Problem(
                where="model",
                given=f"{facts.name} is {kind} ({facts.model_type})",
                allowed="decoders (GPT-like), such as starter:smollm2",
                why="an answer is written token after token, each from those before it",
                remedy="choose a decoder, or the task classify for this model",
            )
        ]
    rows, largest = _embedding_rows(facts), _largest_token(facts)
    if rows is None or largest is None or largest < rows:
        return []
    return [
        Problem(
            where="model",
            given=f"the tokenizer of {facts.name} has tokens up to number {largest}, its embeddings {rows} rows",
            allowed=f"tokens up to number {rows - 1}",
            why="tokens were added without enlarging the model: looking one up would fail in the middle of training",
            remedy="call `model.resize_token_embeddings(len(tokenizer))` and save both again",
        )
    ]


def _embedding_rows(facts: ModelFacts) -> int | None:
    """Rows of the token embeddings, which files may pad beyond the vocabulary."""
    names = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
    return next((shape[0] for name, shape in facts.tensors.items() if name.endswith(names)), None)


def _largest_token(facts: ModelFacts) -> int | None:
    """The largest token number in tokenizer.json, None where there is no such file."""
    try:
        document = json.loads((facts.folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = document["model"]["vocab"]
        numbers = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        added = (token["id"] for token in document.get("added_tokens", ()))
        return max(max(numbers, default=-1), max(added, default=-1))
    except (OSError, ValueError, KeyError, TypeError):
        return None
