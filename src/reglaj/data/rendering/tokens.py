"""Text to token ids, such that the tokens before an answer never depend on the answer.

A model that serves sees a prompt and nothing behind it. So where a token would straddle the border between prompt and
answer, the text is cut there and its pieces are tokenised by themselves. Everywhere else the tokens are those of the
whole text, which is what any other program makes of it.

Special tokens cut a text for the tokenizer anyway ("anchors"), so the work is done section by section between them:
linear in the text, and the short headers come out of a cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from reglaj.data.rendering.facts import Beginning

# Headers and system prompts come again and again.
_CACHED_CHARACTERS = 160
_CACHED_TEXTS = 2048


class TokenWriter:
    """Tokenises texts of one template."""

    def __init__(self, tokenizer: Any, *, anchors: Iterable[str], ends: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        by_itself = self._default_beginning()
        begins = getattr(tokenizer, "bos_token_id", None)
        self._adds_beginning = bool(by_itself)
        self._beginning = by_itself or ([] if begins is None else [begins])
        self._has_front_space = self._puts_space_in_front()
        cutting = set(ends) | {text for text in anchors if self._cuts(text)}
        pattern = "|".join(re.escape(text) for text in sorted(cutting, key=lambda text: (-len(text), text)))
        self._anchors = re.compile(pattern or r"(?!)")

    def write(self, text: str, borders: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """Token ids of a text, with the one beginning token, and how many of them lie before each border.

        borders: positions in the text, ascending. The ids before a border are those of `write(text[:border], ...)`.
        """
        starts = [0] + [match.start() for match in self._anchors.finditer(text) if match.start()]
        ids: list[int] = []
        places: list[int] = []
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
            while len(places) < len(borders) and borders[len(places)] <= start:
                places.append(len(ids))
            inside = [border - start for border in borders[len(places) :] if border < end]
            section, counts = self._section(text[start:end], inside)
            places += [len(ids) + count for count in counts]
            ids += section
        places += [len(ids)] * (len(borders) - len(places))
        return self._begin(ids, places)

    def beginning(self, text: str) -> Beginning:
        """Who writes the beginning token of a text: the template, the renderer in the tokenizer's stead, or nobody."""
        if self._beginning and self._encode(text)[: len(self._beginning)] == self._beginning:
            return "template"
        return "added" if self._adds_beginning else "none"

    def _begin(self, ids: list[int], places: list[int]) -> tuple[list[int], list[int]]:
        """Exactly one beginning: none is added to a template's own, and a second one is taken away."""
        length, written = len(self._beginning), 0
        while length and ids[written : written + length] == self._beginning:
            written += length
        wanted = length if written or self._adds_beginning else 0
        if written == wanted:
            return ids, places
        moved = wanted - written
        return self._beginning + ids[written:], [max(place + moved, wanted) for place in places]

    def _section(self, text: str, borders: Sequence[int]) -> tuple[list[int], list[int]]:
        """Tokens of a section, and how many lie before each border inside it."""
        stops = [*borders, len(text)]
        done: list[int] = []
        counts: list[int] = []
        start = 0
        piece = self._encode(text[: stops[0]])
        for stop, following in pairwise(stops):
            whole = self._piece(text, start, following)
            if whole[: len(piece)] != piece:
                done += piece
                start, piece = stop, []
                whole = self._piece(text, start, following)
            counts.append(len(done) + len(piece))
            piece = whole
        return done + piece, counts

    def _piece(self, text: str, start: int, end: int) -> list[int]:
        return self._encode_inside(text[start:end]) if start else self._encode(text[:end])

    def _encode(self, text: str) -> list[int]:
        if len(text) > _CACHED_CHARACTERS:
            return list(self._ids(text))
        if text not in self._cache:
            if len(self._cache) >= _CACHED_TEXTS:
                self._cache.clear()
            self._cache[text] = self._ids(text)
        return self._cache[text]

    def _encode_inside(self, text: str) -> list[int]:
        """Tokens of a piece that does not begin a text, for tokenizers that put a space in front of what does."""
        if self._has_front_space:
            for front in ("\n", "|", "."):
                before, both = self._encode(front), self._encode(front + text)
                if both[: len(before)] == before:
                    return both[len(before) :]
        return self._encode(text)

    def _ids(self, text: str) -> list[int]:
        # verbose: a text longer than the model's context is a matter for `fit`, not for a warning.
        return self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] if text else []

    def _default_beginning(self) -> list[int]:
        """What the tokenizer by itself puts in front of a text."""
        plain, full = self._ids("a"), list(self._tokenizer("a", verbose=False)["input_ids"])
        for place in range(len(full) - len(plain) + 1):
            if full[place : place + len(plain)] == plain:
                return full[:place]
        return []

    def _puts_space_in_front(self) -> bool:
        return all(
            self._ids(front + text) != self._ids(front) + self._ids(text)
            for front in ("\n", "|", ".")
            for text in ("a", "Z")
        )

    def _cuts(self, text: str) -> bool:
        """Whether text before this token is tokenised as if the token were not there."""
        behind = f"{text}x"
        number = self._tokenizer.convert_tokens_to_ids(text)
        return self._ids(behind)[:1] == [number] and all(
            self._ids(before + behind) == self._ids(before) + self._ids(behind) for before in ("x", "x\n", "x  ")
        )
