"""Texts that records must not repeat: the user's evaluation sets, and what an earlier run has learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reglaj.core.errors import user_error
from reglaj.data.config import DataConfig
from reglaj.data.conversation import BrokenRecord
from reglaj.data.evidence import OtherTexts
from reglaj.data.formats import opening, read_conversation
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import Source, no_records, open_reader
from reglaj.data.reading.files import guarded
from reglaj.data.roles import ColumnRoles
from reglaj.data.sources import Opened
from reglaj.data.staging import ListedTexts, views_of

if TYPE_CHECKING:
    from reglaj.data.cleaning import Cleaner
    from reglaj.data.reading.batch import Batch

_TEXT_NAMES = ("text", "question", "prompt", "input", "instruction", "query", "source", "sentence", "content")


@dataclass(frozen=True, kw_only=True)
class EarlierRun:
    """A run that this one starts from. data: its data folder."""

    name: str
    data: Path

    @property
    def digest(self) -> str:
        """The key of its data stands for their content."""
        return self.data.name

    @property
    def note(self) -> str:
        """What is said where its data cannot be compared with ours."""
        return (
            f"{self.name}, which this run starts from, may have learnt from these records: its data "
            f"({self.data}) are not here, or have other columns, and were not compared"
        )

    def is_comparable(self, roles: ColumnRoles) -> bool:
        """Whether its training rows are here and have the columns of this task."""
        import pyarrow.parquet as pq

        path = self.data / "train.parquet"
        return path.is_file() and set(roles.inputs) <= set(pq.read_schema(path).names)

    def texts(self, roles: ColumnRoles) -> OtherTexts:
        """What it has learnt from."""
        import pyarrow.parquet as pq

        table = pq.read_table(self.data / "train.parquet", columns=list(roles.inputs))
        rows: list[tuple[str, ...]] = list(zip(*(table[name].to_pylist() for name in roles.inputs), strict=True))
        lists = {name: ListedTexts([view(row) for row in rows]) for name, view in views_of(roles).items()}
        return OtherTexts(kind="earlier_run", name=f"the training data of {self.name}", texts=dict(lists))


def others_of(
    compared: Sequence[Source],
    digests: Sequence[str],
    runs: Sequence[EarlierRun],
    config: DataConfig,
    roles: ColumnRoles,
    cleaner: Cleaner | None,
) -> list[OtherTexts]:
    """Evaluation sets, mended as the data are, and earlier runs."""
    found = [
        _EvaluationSet(source, digest, roles, cleaner).read(config)
        for source, digest in zip(compared, digests, strict=True)
    ]
    return [*found, *(run.texts(roles) for run in runs if run.is_comparable(roles))]


class _EvaluationSet:
    """One file of `data.decontaminate`: in the columns of the recipe, else in a text column with a usual name.

    Whatever can be read of a record is compared, also where it could not be learnt from.
    """

    def __init__(self, source: Source, digest: str, roles: ColumnRoles, cleaner: Cleaner | None) -> None:
        self._source, self._digest, self._roles, self._cleaner = source, digest, roles, cleaner
        self._views = views_of(roles)
        self._texts: dict[str, list[str]] = {name: [] for name in self._views}
        self._lines: list[int] = []

    def read(self, config: DataConfig) -> OtherTexts:
        """Its texts. Raises `UserError` where no column is known, or no record has a text."""
        source, roles = self._source, self._roles
        reader = open_reader(source.path, source.name, source.kind)
        given = [{r: c for r, c in one.columns.items() if c in reader.columns} for one in config.sources]
        for columns in (*given, {}):
            # An evaluation set need not have labels.
            wanted = roles if roles.layouts else ColumnRoles(inputs=roles.inputs)
            chosen = choose_layout(reader, source.name, columns, wanted, where="data.decontaminate")
            if isinstance(chosen, Chosen):
                self._read_records(Opened(source, self._digest, reader, chosen))
                break
        else:
            self._read_column(reader.columns)
        if not self._lines:
            raise no_records(source.name)
        lists = {name: ListedTexts(found) for name, found in self._texts.items()}
        return OtherTexts(kind="evaluation_set", name=source.name, texts=dict(lists), lines=self._lines)

    def _read_records(self, opened: Opened) -> None:
        for batch, _ in guarded(self._source.name, opened.read((), 16_384)):
            opened.mend(batch, self._cleaner, self._roles.target)
            for place, row in enumerate(zip(*batch.cells, strict=True)):
                if place in batch.faults:
                    continue
                texts = self._conversation(opened, row) if self._roles.layouts else self._plain(row)
                self._add(batch, place, texts)

    def _plain(self, row: tuple[str | None, ...]) -> dict[str, str]:
        cells = tuple(cell or "" for cell in row[: len(self._roles.inputs)])
        return {name: view(cells) for name, view in self._views.items()}

    def _conversation(self, opened: Opened, row: tuple[str | None, ...]) -> dict[str, str]:
        cells = dict(zip(opened.chosen.columns, row, strict=True))
        try:
            whole = (read_conversation(opened.chosen.layout, cells).to_json(),)
        except BrokenRecord:  # a question without an answer, say: it is compared as it begins
            return dict.fromkeys(self._views, opening(opened.chosen.layout, cells))
        return {name: view(whole) for name, view in self._views.items()}

    def _add(self, batch: Batch, place: int, texts: dict[str, str]) -> None:
        if any(text.strip() for text in texts.values()):
            self._lines.append(batch.lines[place])
            for name, text in texts.items():
                self._texts[name].append(text)

    def _read_column(self, columns: Sequence[str]) -> None:
        """A file with questions alone: they are compared as questions, and as wholes."""
        name = next((name for name in _TEXT_NAMES if name in columns), columns[0] if len(columns) == 1 else None)
        if name is None:
            raise user_error(
                f"{self._source.name!r} has the columns {', '.join(columns[:20])}",
                allowed=f"the columns of the recipe's own sources, or one called {', '.join(_TEXT_NAMES)}",
                why="its texts are compared with those of the data",
                remedy="rename the column with the texts",
                where="data.decontaminate",
            )
        reader = open_reader(self._source.path, self._source.name, self._source.kind)
        repair = self._cleaner.repair if self._cleaner and self._cleaner.repairs else str
        for batch in guarded(self._source.name, reader.read([name], 16_384, nested=frozenset({name}))):
            for place, cell in enumerate(batch.cells[0]):
                if cell:
                    self._add(batch, place, dict.fromkeys(self._views, repair(cell)))
