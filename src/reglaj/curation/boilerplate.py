"""Texts that say little of their own: mostly markup, mostly signs and addresses, or lines that many texts share.

Legend: N texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reglaj.data.folding import fold

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

KINDS = ("markup", "symbols", "repeated_lines")
MARKUP_SHARE = 0.3
"""Share of a text's characters inside tags and entities from which it counts as markup."""
_LINE_SHARE = 0.8
_FEWEST_LINES = 5
_FEWEST_STARTS = 10
_START_WORDS = 6
_LINE_CHARACTERS = 12
_TAG = re.compile(
    r"</?[a-zA-Z][\w:-]*(?:\s[^<>]{0,500})?/?>|<!--.{0,500}?-->|&(?:#\d{1,7}|#x[\da-fA-F]{1,6}|[a-zA-Z]{2,8});"
)
# Bounded, and begun at the start of a run only: a megabyte without a space must not cost its square.
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,255}\.\w[\w.]{1,255}")


@dataclass(frozen=True)
class Boilerplate:
    """kinds: kind to (N,) bool. lines: what is shared, and by how many texts; starts: how texts begin alike; both the
    most frequent first."""

    kinds: dict[str, NDArray[np.bool_]]
    lines: list[tuple[str, int]]
    starts: list[tuple[str, int]]

    @property
    def rows(self) -> NDArray[np.bool_]:
        """(N,) whether a text is of any kind. Beginning alike is no fault: prompts are often templates."""
        import numpy as np

        return np.any(list(self.kinds.values()), axis=0)


def find_boilerplate(texts: Sequence[str]) -> Boilerplate:
    """Which of the texts are boilerplate, and of which kind."""
    import numpy as np

    shared = _shared_lines(texts)
    masks = {
        "markup": [is_markup(text) for text in texts],
        "symbols": [is_symbols(text) for text in texts],
        "repeated_lines": [_is_repeated(text, shared) for text in texts],
    }
    kinds = {kind: np.array(mask, dtype=bool) for kind, mask in masks.items()}
    return Boilerplate(kinds, _most(shared), _most(_shared_starts(texts)))


def is_markup(text: str) -> bool:
    """Whether a good part of the text is tags and entities, as of HTML or XML."""
    if "<" not in text and "&" not in text:
        return False
    inside = sum(len(match) for match in _TAG.findall(text))
    return inside >= MARKUP_SHARE * max(1, len(text.strip()))


def is_symbols(text: str) -> bool:
    """Whether next to nothing but signs, or nothing but addresses, is left to read."""
    words = _ADDRESS.sub(" ", text)
    kept = "".join(words.split())
    letters = sum(character.isalnum() for character in kept)
    if not letters:
        return True
    return letters < 0.3 * len(kept)


def _lines(text: str) -> list[str]:
    """The lines of a text that say something, folded."""
    return [line for line in map(fold, text.splitlines()) if len(line) >= _LINE_CHARACTERS]


def _shared_lines(texts: Sequence[str]) -> dict[str, int]:
    """Lines that at least five texts, and one in a thousand, have in common; only texts of several lines count."""
    counts: Counter[str] = Counter()
    for text in texts:
        if "\n" in text.strip() or "\r" in text.strip():
            counts.update(set(_lines(text)))
    fewest = max(_FEWEST_LINES, len(texts) // 1000)
    return {line: count for line, count in counts.items() if count >= fewest}


def _is_repeated(text: str, shared: dict[str, int]) -> bool:
    """Whether nearly all of the text's characters are in lines that others have too."""
    if not shared or len(text.strip().splitlines()) < 2:
        return False
    lines = _lines(text)
    inside = sum(len(line) for line in lines if line in shared)
    return inside > 0 and inside >= _LINE_SHARE * sum(len(line) for line in map(fold, text.splitlines()))


def _shared_starts(texts: Sequence[str]) -> dict[str, int]:
    """First words that at least ten texts, and one in fifty, have in common, where more words follow."""
    counts: Counter[str] = Counter()
    for text in texts:
        words = text[:400].casefold().split(maxsplit=_START_WORDS)
        if len(words) > _START_WORDS:
            counts[" ".join(words[:_START_WORDS])] += 1
    fewest = max(_FEWEST_STARTS, len(texts) // 50)
    return {start: count for start, count in counts.items() if count >= fewest}


def _most(counts: dict[str, int], limit: int = 10) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:limit]
