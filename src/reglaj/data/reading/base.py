"""What a format has to offer: its columns, and the records as batches of the wanted columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from reglaj.core.registry import Registry
from reglaj.data.reading.batch import Batch
from reglaj.data.reading.encodings import Encoding
from reglaj.data.reading.files import SourceFile
from reglaj.data.reading.records import Dialect

READERS: Registry[type[Reader]] = Registry("format", "reglaj.data.reading")
# Formats without a header: how many records are looked at for the names of the columns.
HEADER_RECORDS = 2000


class Reader(ABC):
    """One format, reading one file.

    kind: the name in recipes. columns: distinct names, in file order. notes: what a user should know.
    lenient: for previews, where nested or missing values are shown and not refused. may_have_more: whether records
    further on may have columns that `columns` does not name. json_texts: for each nested column, how many of the
    records read so far had a text there, which has JSON inside.
    The constructor looks at the beginning of the file only, and raises `UserError` when it is not of the format.
    """

    kind: ClassVar[str]
    columns: list[str]
    dialect: Dialect | None = None
    lenient: bool = False
    may_have_more: ClassVar[bool] = False

    def __init__(self, file: SourceFile, encoding: Encoding | None) -> None:
        self.file = file
        self.encoding = encoding
        self.notes: list[str] = list(encoding.notes) if encoding else []
        self.json_texts: Counter[str] = Counter()

    @abstractmethod
    def read(
        self,
        columns: Sequence[str],
        max_rows: int,
        *,
        nested: frozenset[str] = frozenset(),
        optional: frozenset[str] = frozenset(),
    ) -> Iterator[Batch]:
        """Every record from the start, at most `max_rows` in a batch, with the cells of some `columns`.

        nested: columns whose lists and objects become JSON text; in the others they are faults. optional: columns
        that a record may lack: then the cell is None. Each record of the file comes exactly once, as cells or as
        a fault. What is not asked for is not kept.
        """


class TextReader(Reader):
    """A format whose files are text."""

    encoding: Encoding

    def __init__(self, file: SourceFile, encoding: Encoding) -> None:
        super().__init__(file, encoding)
