"""What comes out of the renderer, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any


@dataclass(slots=True)
class Rendered:
    """A conversation as tokens.

    ids: (T,) token ids. mask: (T,) True where the token is supervised. answers: how many assistant turns the loss falls
    on; untrained_answers: how many it does not fall on (the template rewrites them, `on` leaves them out, or they were
    dropped to fit). system_was_dropped: the template leaves the system prompt out without a word.
    stripped_end_tokens: an answer ended with the text of an end token, which was taken off.
    """

    ids: list[int]
    mask: list[bool]
    answers: int
    untrained_answers: int
    system_was_dropped: bool = False
    stripped_end_tokens: bool = False


@dataclass(slots=True)
class Fit:
    """What became of a conversation that had to fit: one example, or several windows of it."""

    examples: list[Rendered]
    prompt_was_cut: bool = False


def spans(tokenizer: Any, rendered: Rendered) -> list[tuple[str, bool]]:
    """Pieces of the text in order, each with whether it is trained on; joined, they are the text of all tokens.

    A piece is what its tokens add to the text so far: decoded by themselves, some tokenizers would lose a space at the
    front of every piece.
    """
    pieces: list[tuple[str, bool]] = []
    place, shown = 0, ""
    for is_trained, run in groupby(rendered.mask):
        place += sum(1 for _ in run)
        text = decode(tokenizer, rendered.ids[:place])
        pieces.append((text.removeprefix(shown), is_trained))
        shown = text
    return pieces


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text of tokens, special ones included, nothing tidied up."""
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
