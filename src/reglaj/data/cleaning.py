"""What may be left out because a look at the data says so: the `data.clean` section, and the contract behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import field_validator

from reglaj.core.config import Config
from reglaj.core.console import SILENT, Console
from reglaj.data.languages import LANGUAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class CleanConfig(Config):
    """What is taken out of train and validation, or mended. By default nothing: see the quality report."""

    label_errors: Literal["keep", "drop"] = "keep"
    """Records whose label the other records contradict, found by confident learning on the embeddings of a frozen
    model: `drop` leaves them out as `label_error`."""
    outliers: Literal["keep", "drop"] = "keep"
    """Records whose text is unlike all the others: `drop` leaves them out as `outlier`."""
    boilerplate: Literal["keep", "drop"] = "keep"
    """Records that are mostly markup, mostly signs and addresses, or lines that many others have too: `drop` leaves
    them out as `boilerplate`."""
    languages: tuple[str, ...] = ()
    """Two-letter codes such as [ro, en]: records that are surely in another language are left out as `other_language`,
    those too short to say stay. Empty: every language stays."""
    encodings: Literal["keep", "repair"] = "keep"
    """Texts that were once decoded wrongly (`cafÃ©`): `repair` mends them before anything else is looked at. What is
    predicted later is not mended."""

    @field_validator("languages")
    @classmethod
    def _languages_are_known(cls, codes: tuple[str, ...]) -> tuple[str, ...]:
        for code in codes:
            if code not in LANGUAGES:
                guess = next((known for known, name in LANGUAGES.items() if name.lower() == code.strip().lower()), None)
                meant = f"; {code} is {guess}" if guess else ""
                raise ValueError(f"two-letter codes of languages that can be told apart, such as en and ro{meant}")
        return codes

    @property
    def needs_embeddings(self) -> bool:
        """Whether a model has to look at the texts."""
        return "drop" in (self.label_errors, self.outliers)

    @property
    def is_off(self) -> bool:
        """Whether everything stays as it is."""
        return self == CleanConfig()


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
    repaired: int = 0
    """How many texts it has changed so far."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """Everything that decides its answers, as JSON values: it enters the key of the data."""

    def repair(self, text: str) -> str:
        """The text with broken encodings mended."""
        return text

    @abstractmethod
    def drop(self, rows: CleanRows, console: Console = SILENT) -> dict[str, NDArray[np.bool_]]:
        """Bucket of the ledger to the rows that belong in it, (N,) bool; a row of several goes into the first."""
