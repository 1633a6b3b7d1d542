"""Texts that records must not repeat: the user's evaluation sets, and what an earlier run has learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reglaj.core.console import Console
from reglaj.core.errors import user_error
from reglaj.data.config import DataConfig
from reglaj.data.evidence import OtherTexts
from reglaj.data.layouts import Chosen, choose_layout
from reglaj.data.reading import Source
from reglaj.data.roles import ColumnRoles
from reglaj.data.shaping import Shaper, shape_batch
from reglaj.data.sources import Opened
from reglaj.data.staging import ListedTexts, views_of

if TYPE_CHECKING:
    from reglaj.data.relations import Texts

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


def evaluation_set(
    source: Source, digest: str, config: DataConfig, roles: ColumnRoles, shaper: Shaper | None, console: Console
) -> OtherTexts:
    """The texts of one file of `data.decontaminate`: in the columns of the recipe or, where these are not there, in the
    only text column that goes by a usual name. Raises `UserError` where no column is known."""
    from reglaj.data.reading import open_reader

    reader = open_reader(source.path, source.name, source.kind)
    given = [{r: c for r, c in one.columns.items() if c in reader.columns} for one in config.sources]
    texts: dict[str, list[str]] = {name: [] for name in views_of(roles)}
    for columns in (*given, {}):
        chosen = choose_layout(reader, source.name, columns, _inputs_only(roles), where="data.decontaminate")
        if isinstance(chosen, Chosen):
            _collect(Opened(source, digest, reader, chosen), roles, shaper, texts)
            break
    else:
        _collect_column(source, digest, roles, texts)
    lists: dict[str, Texts] = {name: ListedTexts(found) for name, found in texts.items() if found}
    return OtherTexts(kind="evaluation_set", name=source.name, digest=digest, texts=lists)


def _inputs_only(roles: ColumnRoles) -> ColumnRoles:
    """An evaluation set need not have labels."""
    return roles if roles.layouts else ColumnRoles(inputs=roles.inputs)


def _collect(opened: Opened, roles: ColumnRoles, shaper: Shaper | None, texts: dict[str, list[str]]) -> None:
    views, num_inputs = views_of(roles), len(roles.inputs)
    for batch, _ in opened.read((), 16_384):
        rows: list[tuple[str, ...]]
        if shaper:
            shaped = shape_batch(batch, opened.chosen, shaper, len(roles.names))
            rows = [record.cells for record in shaped.records if record]
        else:
            cells = zip(*batch.cells[:num_inputs], strict=True)
            rows = [tuple(cell or "" for cell in row) for row in cells if any(row)]
        for name, view in views.items():
            texts[name] += [view(row) for row in rows]


def _collect_column(source: Source, digest: str, roles: ColumnRoles, texts: dict[str, list[str]]) -> None:
    """A file with questions alone: they are compared as questions, and as wholes."""
    from reglaj.data.reading import open_reader

    reader = open_reader(source.path, source.name, source.kind)
    name = next((name for name in _TEXT_NAMES if name in reader.columns), None)
    if name is None and len(reader.columns) == 1:
        name = reader.columns[0]
    if name is None:
        raise user_error(
            f"{source.name!r} has the columns {', '.join(reader.columns[:20])}",
            allowed=f"the columns of the recipe's own sources, or one called {', '.join(_TEXT_NAMES)}",
            why="its texts are compared with those of the data",
            remedy="rename the column with the texts",
            where="data.decontaminate",
        )
    for batch in reader.read([name], 16_384, nested=frozenset({name})):
        found = [cell for cell in batch.cells[0] if cell and not cell.isspace()]
        for view in texts.values():
            view += found


def earlier_run(run: EarlierRun, roles: ColumnRoles) -> OtherTexts | None:
    """What an earlier run has learnt from, or None where its data are not here any more or hold other columns."""
    import pyarrow.parquet as pq

    path = run.data / "train.parquet"
    if not path.is_file() or not set(roles.inputs) <= set(pq.read_schema(path).names):
        return None
    table = pq.read_table(path, columns=list(roles.inputs))
    rows: list[tuple[str, ...]] = list(zip(*(table[name].to_pylist() for name in roles.inputs), strict=True))
    lists: dict[str, Texts] = {}
    for name, view in views_of(roles).items():
        lists[name] = ListedTexts([view(row) for row in rows])
    return OtherTexts(kind="earlier_run", name=f"the training data of {run.name}", digest=run.digest, texts=lists)


def others_of(
    sources: Sequence[Source],
    digests: Sequence[str],
    runs: Sequence[EarlierRun],
    config: DataConfig,
    roles: ColumnRoles,
    shaper: Shaper | None,
    console: Console,
) -> list[OtherTexts]:
    """Evaluation sets and earlier runs."""
    found = [
        evaluation_set(source, digest, config, roles, shaper, console)
        for source, digest in zip(sources, digests, strict=True)
    ]
    return [*found, *(before for run in runs if (before := earlier_run(run, roles)))]
