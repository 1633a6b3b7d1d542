"""Which texts nearly say the same: what the data room asks of whoever can tell (see `reglaj.curation`).

Legend: N texts, P confirmed pairs, K texts that lie inside others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from reglaj.core.console import SILENT, Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Texts(Protocol):
    """Texts that can be gone through again and again, in batches and always in the same order."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[list[str]]: ...


@dataclass(frozen=True, kw_only=True)
class NearDuplicates:
    """The answer of a `TextMatcher`.

    cluster: (N,) int64, the smallest row number of the cluster that a text is in; its own where it is alone.
    pairs: (P, 2) int64 rows, smaller first; similarity: (P,) float32 of each. They span every cluster at least.
    contained: (K, 2) int64 (inner, outer): the inner text lies inside the outer one; containment: (K,) float32, the
    share of the inner one. Contained texts are reported and not clustered.
    """

    cluster: NDArray[np.int64]
    pairs: NDArray[np.int64]
    similarity: NDArray[np.float32]
    contained: NDArray[np.int64]
    containment: NDArray[np.float32]


class TextMatcher(ABC):
    """Finds near-duplicates. Texts come as they were written; folding them is its own affair."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides its answers, as JSON values: it enters the key of the data."""

    @abstractmethod
    def find(self, texts: Texts, console: Console = SILENT) -> NearDuplicates:
        """Near-duplicates among the texts. The order of the texts decides the numbers, never the clusters."""

    @abstractmethod
    def seen(self, texts: Texts, others: Texts, console: Console = SILENT) -> NDArray[np.int64]:
        """(N,) the row of `others` that a text nearly repeats, lies inside or holds; -1 where there is none."""
