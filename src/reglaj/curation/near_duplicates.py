"""Near-duplicates by MinHash and bands, confirmed by true similarity.

Two texts are near-duplicates where, after folding (`data.folding.fold`),
1. they are equal (similarity 1), or
2. they are equal without punctuation, symbols and white space (similarity 1): a comma more or less is no other text,
   however short the text is; or
3. the Jaccard similarity of their sets of 5 characters in a row is at least the threshold. Candidates come from
   MinHash bands, so a pair right at the threshold is found with a probability of 0.995, and each is then confirmed by
   counting: none that is below is ever called a near-duplicate.

Texts of fewer than 5 characters are compared by 1 and 2 only. Clusters are the connected components of these pairs, so
a chain may join texts that are not alike themselves: the lower the threshold, the longer the chains.

A text that lies inside another (`containment`) is told apart from it.

Legend: N texts, M other texts, P pairs, K contained texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.curation.banding import choose_banding
from reglaj.curation.clusters import Linker, link_near
from reglaj.curation.collection import Collection, collect
from reglaj.curation.containment import CONTAINED, MIN_SHINGLES, find_contained
from reglaj.curation.shingles import WIDTH
from reglaj.curation.sightings import Sightings
from reglaj.data.config import NearDuplicatesConfig
from reglaj.data.folding import group_numbers
from reglaj.data.relations import NearDuplicates, TextMatcher, Texts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

_VERSION = 1  # of the answers: another one where they may differ for the same texts


class MinHashMatcher(TextMatcher):
    """The matcher that `data.near_duplicates` asks for. `semantic` is not its affair (see `curation.semantic`)."""

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self._threshold = config.threshold
        self._banding = choose_banding(config.threshold)

    def identity(self) -> Mapping[str, Any]:
        return {
            "kind": "minhash",
            "version": _VERSION,
            "threshold": self._threshold,
            "bands": [self._banding.bands, self._banding.rows],
            "width": WIDTH,
            "contained": [CONTAINED, MIN_SHINGLES],
        }

    def find(self, texts: Texts, console: Console = SILENT) -> NearDuplicates:
        """Memory: under 2 KiB for a text of 60 characters; shingles beyond 1 GiB lie in a temporary file."""
        import numpy as np

        collection = collect(texts, self._banding, console, doing="reading texts")
        linker = Linker(collection, self._threshold)
        _link_bare(linker, collection)
        link_near(linker, collection, console)
        cluster = _smallest(linker.components(), collection.first)
        inside = [
            (left[apart], right[apart], share[apart])
            for left, right, share in find_contained(collection, collection, console)
            if (apart := cluster[left] != cluster[right]).any()
        ]
        pairs, similarity = _all_pairs(linker, collection)
        none = np.empty(0, dtype=np.int64)
        contained = np.stack(
            [np.concatenate([none, *(collection.first[piece[side]] for piece in inside)]) for side in (0, 1)], axis=1
        )
        containment = np.concatenate([none, *(piece[2] for piece in inside)]).astype(np.float32)
        order = np.lexsort((contained[:, 1], contained[:, 0]))
        return NearDuplicates(
            cluster=cluster[collection.distinct],
            pairs=pairs,
            similarity=similarity,
            contained=contained[order],
            containment=containment[order],
        )

    def seen(self, texts: Texts, others: Texts, console: Console = SILENT) -> NDArray[np.int64]:
        """The smallest row among the nearest kind: equal, equal without punctuation, similar, inside or around it."""
        mine = collect(texts, self._banding, console, doing="reading texts")
        theirs = collect(others, self._banding, console, doing="reading the others")
        sightings = Sightings(mine, theirs, self._threshold)
        sightings.equal()
        sightings.similar(console)
        sightings.inside(console)
        return sightings.rows()


def _link_bare(linker: Linker, collection: Collection) -> None:
    """Link texts that are equal without punctuation to the first of them."""
    import numpy as np

    if len(collection):
        groups = group_numbers(collection.bare)
        first = _smallest(groups, np.arange(len(collection)))
        others = np.flatnonzero(first != np.arange(len(collection)))
        linker.link(first[others], others, np.ones(len(others), dtype=np.float32))


def _smallest(groups: Rows, values: Rows) -> Rows:
    """For each item the smallest value of its group. groups: numbers from 0 on."""
    import numpy as np

    smallest = np.full(int(groups.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(smallest, groups, values)
    return smallest[groups]


def _all_pairs(linker: Linker, collection: Collection) -> tuple[Rows, NDArray[np.float32]]:
    """Confirmed pairs of rows, each once, and their similarity: equals are paired with the first of them."""
    import numpy as np

    rows = np.arange(len(collection.distinct))
    equal = np.flatnonzero(collection.first[collection.distinct] != rows)
    left, right, similarity = linker.pairs()
    a = np.concatenate((collection.first[collection.distinct[equal]], collection.first[left]))
    b = np.concatenate((equal, collection.first[right]))
    similarity = np.concatenate((np.ones(len(equal), dtype=np.float32), similarity))
    pairs = np.stack((np.minimum(a, b), np.maximum(a, b)), axis=1)
    # The most similar first, so that it stays where a pair was confirmed twice.
    order = np.lexsort((-similarity, pairs[:, 1], pairs[:, 0]))
    pairs, similarity = pairs[order], similarity[order]
    is_first = np.ones(len(pairs), dtype=bool)
    is_first[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[is_first], similarity[is_first]
