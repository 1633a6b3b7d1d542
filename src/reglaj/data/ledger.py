"""The ledger: every record that was read is in exactly one bucket.

While records stream by, the ledger keeps some 60 bytes of each (hashes of its texts, a number for its label, its
line), never the texts. Legend: N records in the order they were read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reglaj.data.folding import digest, digest_pair, fold, to_hashes
from reglaj.data.reading.batch import Batch, excerpt
from reglaj.data.roles import ColumnRoles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from reglaj.data.shaping import Shaped

# Order and names are those of reports and of docs/data.md; a reason to drop a record is added here and there.
BUCKETS = (
    "train",
    "validation",
    "test",
    "unreadable",
    "ragged",
    "empty_text",
    "empty_label",
    "exact_duplicate",
    "contradictory_label",
    "rare_label",
    "near_duplicate_across_parts",
    "group_across_parts",
    "time_across_parts",
    "contaminated",
    "no_time",
    "no_supervised_token",
    "too_long",
    "broken_turns",
    "filtered",
    "label_error",
    "outlier",
    "boilerplate",
    "other_language",
)
CODE = {name: code for code, name in enumerate(BUCKETS)}
REASONS = BUCKETS[3:]
UNDECIDED = -1
_NO_DIGEST = bytes(16)


@dataclass(frozen=True, slots=True)
class Entries:
    """What a batch adds to the staging file: why each record is dropped already, or None, and how it begins."""

    reasons: list[str | None]
    excerpts: list[str | None]


@dataclass
class Columns:
    """The ledger as arrays.

    source: (N,) index of the source. line: (N,). bucket: (N,) code or UNDECIDED. exact, folded: (N, 2) uint64
    digests of the input texts, folded for records that were shaped of the texts of their group. label: (N,) index
    into label_names, -1 for none. length: (N, inputs) characters; one figure for records that were shaped.
    examples: (N,) how many the record gives. first_reasons: bucket to line and reason of the first record in it.
    """

    source: NDArray[np.int32]
    line: NDArray[np.int64]
    bucket: NDArray[np.int8]
    exact: NDArray[np.uint64]
    folded: NDArray[np.uint64]
    label: NDArray[np.int64]
    length: NDArray[np.int32]
    examples: NDArray[np.int32]
    label_names: list[str]
    first_reasons: dict[str, str]

    def __len__(self) -> int:
        return len(self.bucket)


class Ledger:
    """Takes batches in order and says of each record what is known at once: faults, and empty cells."""

    def __init__(self, roles: ColumnRoles) -> None:
        self._roles = roles
        self._codes: dict[str, int] = {}
        self._parts: dict[str, list[NDArray[np.generic]]] = {}
        self._first_reasons: dict[str, str] = {}
        self.num_records = 0

    @property
    def num_stored(self) -> int:
        """How many columns are stored of each record."""
        return len(self._roles.names)

    def add(self, source: int, batch: Batch, shaped: Sequence[Shaped | None] | None = None) -> Entries:
        """Enter a batch of the source with that index; its columns are in the order of the roles.

        shaped: what each record was shaped to, where a shaper did.
        """
        import numpy as np

        size, num_inputs = len(batch), len(self._roles.inputs)
        records = shaped or [None] * size
        buckets = np.full(size, UNDECIDED, dtype=np.int8)
        lengths = np.zeros((size, 1 if shaped else num_inputs), dtype=np.int32)
        labels = np.full(size, -1, dtype=np.int64)
        entries = Entries([None] * size, [None] * size)
        exact, folded = [_NO_DIGEST] * size, [_NO_DIGEST] * size
        for place, (cells, record) in enumerate(zip(zip(*batch.cells, strict=True), records, strict=True)):
            problem = self._problem(batch, place, cells)
            if problem:
                bucket, reason, entries.excerpts[place] = problem
                entries.reasons[place] = reason
                buckets[place] = CODE[bucket]
                self._first_reasons.setdefault(bucket, f"line {batch.lines[place]}: {reason}")
                continue
            texts = cells[:num_inputs]
            if record:
                exact[place], folded[place] = digest(texts), digest([fold(text) for text in record.group])
                entries.excerpts[place] = excerpt(record.group[0] if record.group else texts[0])
                lengths[place] = record.characters
            else:
                exact[place], folded[place] = digest_pair(texts)
                lengths[place] = [len(text) for text in texts]
            if num_inputs < len(cells):
                labels[place] = self._codes.setdefault(cells[num_inputs], len(self._codes))
        self._keep("source", np.full(size, source, dtype=np.int32))
        self._keep("line", np.array(batch.lines, dtype=np.int64))
        self._keep("bucket", buckets)
        self._keep("exact", to_hashes(exact))
        self._keep("folded", to_hashes(folded))
        self._keep("label", labels)
        self._keep("length", lengths)
        self._keep("examples", np.array([record.examples if record else 1 for record in records], dtype=np.int32))
        self.num_records += size
        return entries

    def _keep(self, name: str, values: NDArray[np.generic]) -> None:
        self._parts.setdefault(name, []).append(values)

    def _problem(self, batch: Batch, place: int, cells: tuple[str | None, ...]) -> tuple[str, str, str] | None:
        """(bucket, reason, excerpt) of a record that is dropped whatever the others are."""
        blank = next((number for number, cell in enumerate(cells) if not cell or cell.isspace()), None)
        if blank is None:
            return None
        fault = batch.faults.get(place)
        if fault:
            return fault.bucket, fault.reason, fault.text
        role, cell = self._roles.names[blank], cells[blank]
        what = "is null" if cell is None else "is empty" if not cell else "holds white space only"
        bucket = "empty_label" if role == self._roles.target else "empty_text"
        return bucket, f"the cell for `{role}` {what}", excerpt(cells[0] or "")

    def columns(self) -> Columns:
        """Everything entered so far as arrays; labels are numbered in the order of their names."""
        import numpy as np

        joined = {name: np.concatenate(parts) for name, parts in self._parts.items()}
        self._parts = {name: [values] for name, values in joined.items()}  # the pieces are not needed twice
        names = sorted(self._codes)
        rank = np.full(len(names) + 1, -1, dtype=np.int64)  # the last one stands for -1, no label
        rank[[self._codes[name] for name in names]] = np.arange(len(names))
        numbered: dict[str, Any] = {**joined, "label": rank[joined["label"]]}
        return Columns(**numbered, label_names=names, first_reasons=self._first_reasons)
