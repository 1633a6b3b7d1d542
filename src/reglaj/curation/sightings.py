"""Texts of one collection that were seen in another: in a training set, or in a named evaluation set.

Legend: U distinct texts of ours, V of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reglaj.core.console import Console
from reglaj.curation.clusters import similarities
from reglaj.curation.collection import Collection, expand
from reglaj.curation.containment import find_contained
from reglaj.data.folding import group_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_BUCKET_OTHERS = 64  # of a band that one text is compared with
_CHUNK_PAIRS = 2**20


class Sightings:
    """Which of the others each text was seen as, kind by kind; what an earlier kind found stays.

    A text is compared with at most 64 of the others in each band (the first by their hash): where thousands of others
    share a band with it, a similar one may be missed, never a text be called seen that is not.
    """

    def __init__(self, mine: Collection, theirs: Collection, threshold: float) -> None:
        import numpy as np

        self._mine, self._theirs, self._threshold = mine, theirs, threshold
        self._found = np.full(len(mine), -1, dtype=np.int64)  # smallest row of the others

    def rows(self) -> NDArray[np.int64]:
        """(N,) the row of the others, -1 where there is none."""
        return self._found[self._mine.distinct]

    def _note(self, texts: Rows, rows: Rows) -> None:
        """Keep the smallest row for each text that has none yet."""
        import numpy as np

        best = np.full(len(self._found), np.iinfo(np.int64).max)
        np.minimum.at(best, texts, rows)
        is_news = (self._found < 0) & (best < np.iinfo(np.int64).max)
        self._found[is_news] = best[is_news]

    def equal(self) -> None:
        """Equal after folding, then equal without punctuation."""
        import numpy as np

        for name in ("folded", "bare"):
            mine, theirs = getattr(self._mine, name), getattr(self._theirs, name)
            groups = group_numbers(np.concatenate((mine, theirs))) if len(mine) + len(theirs) else np.empty(0, int)
            smallest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.int64).max)
            np.minimum.at(smallest, groups[len(mine) :], self._theirs.first)
            rows = smallest[groups[: len(mine)]]
            texts = np.flatnonzero(rows < np.iinfo(np.int64).max)
            self._note(texts, rows[texts])

    def similar(self, console: Console) -> None:
        """At least as similar as the threshold."""
        import numpy as np

        order = self._theirs.canonical
        bands = list(zip(self._mine.bands, self._theirs.bands, strict=True))
        near_texts, near_rows = [], []
        with console.progress("comparing", total=len(bands), unit="bands") as advance:
            for mine, theirs in bands:
                texts = np.flatnonzero((self._found < 0) & (self._mine.sizes > 0))
                keys = theirs[order]
                by_key = np.argsort(keys, kind="stable")
                keys, others = keys[by_key], order[by_key]
                starts = np.searchsorted(keys, mine[texts], side="left")
                counts = np.minimum(np.searchsorted(keys, mine[texts], side="right") - starts, _BUCKET_OTHERS)
                for begin in range(0, len(texts), _CHUNK_PAIRS // _BUCKET_OTHERS):
                    some = slice(begin, begin + _CHUNK_PAIRS // _BUCKET_OTHERS)
                    left = np.repeat(texts[some], counts[some])
                    right = others[expand(starts[some], counts[some])]
                    similarity = similarities(self._mine, self._theirs, left, right, self._threshold)
                    is_near = similarity >= self._threshold
                    near_texts.append(left[is_near])
                    near_rows.append(self._theirs.first[right[is_near]])
                advance(1)
        none = np.empty(0, dtype=np.int64)
        self._note(np.concatenate([none, *near_texts]), np.concatenate([none, *near_rows]))

    def inside(self, console: Console) -> None:
        """One text inside the other, whichever is the inner one."""
        for left, right, _ in find_contained(self._mine, self._theirs, console):
            self._note(left, self._theirs.first[right])
        for left, right, _ in find_contained(self._theirs, self._mine, console):
            self._note(right, self._theirs.first[left])
