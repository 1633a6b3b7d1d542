"""What may be left out because a look at the data says so: the `data.clean` section, and the contract behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.core.config import Config
from reglaj.core.console import SILENT, Console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CleanConfig(Config):
    """What is taken out of train and validation, or mended. Nothing by default: the quality report says what it finds."""


@dataclass(frozen=True, kw_only=True)
class CleanRows:
    """Rows of train and validation; the test is neither looked at nor cleaned.

    texts: (N,) the input texts of each, one after the other. labels: (N,), or None where the task has none.
    """

    texts: list[str]
    labels: list[str] | None


class Cleaner(ABC):
    """Says which rows go, and mends texts before they are accounted for."""

    repairs: bool = False
    """Whether `repair` may change anything."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides its answers, as JSON values: it enters the key of the data."""

    def repair(self, text: str) -> str:
        """The text with broken encodings mended."""
        return text

    @abstractmethod
    def drop(self, rows: CleanRows, console: Console = SILENT) -> dict[str, NDArray[np.bool_]]:
        """Bucket of the ledger to the rows that belong in it, (N,) bool; a row of several goes into the first."""
