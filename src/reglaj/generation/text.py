"""Tokens as text while they come: never half a character, and nothing that may become a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HALF = "\N{REPLACEMENT CHARACTER}"


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, special ones left out, spaces as the model wrote them."""
    text = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


class TextStream:
    """Text that may be shown, piece by piece.

    Each token is decoded together with a few before it, and what they alone give is taken off: some tokenizers drop
    the space in front of a first word. The way is that of vLLM's incremental detokenization.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stop = stop
        self._ids: list[int] = []
        self._known = 0
        """Tokens before this one are settled and only give context."""
        self._read = 0
        """Tokens before this one have been shown or are held back."""
        self._held = ""
        self.text = ""
        """Everything that was given out."""
        self.is_stopped = False
        """Whether a stop string came: what follows is nobody's."""

    def push(self, token: int) -> str:
        """The text that this token makes certain, often none."""
        self._ids.append(token)
        before = decode(self._tokenizer, self._ids[self._known : self._read])
        after = decode(self._tokenizer, self._ids[self._known :])
        if len(after) <= len(before) or after.endswith(_HALF):
            return ""
        self._known, self._read = self._read, len(self._ids)
        return self._give(after[len(before) :], hold=True)

    def finish(self) -> str:
        """What was held back: nothing more comes."""
        before = decode(self._tokenizer, self._ids[self._known : self._read])
        after = decode(self._tokenizer, self._ids[self._known :])
        self._read = self._known = len(self._ids)
        return self._give(after[len(before) :], hold=False)

    def _give(self, new: str, *, hold: bool) -> str:
        if self.is_stopped:
            return ""
        text = self._held + new
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.is_stopped = True
            given, self._held = text[: min(found)], ""
        else:
            cut = len(text) - (self._may_begin(text) if hold else 0)
            given, self._held = text[:cut], text[cut:]
        self.text += given
        return given

    def _may_begin(self, text: str) -> int:
        """Characters at the end of `text` that may be the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self._stop)), 0)
