"""From a row that was trained on back to file and line: what `reglaj data RUN --where TEXT` answers.

Train, validation and what was dropped are searched and quoted. Of the sealed test part the answer is file and line
only: neither text nor label of such a row is handed on, so asking is no opening.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault, user_error
from reglaj.core.runs import find_run, read_manifest
from reglaj.data.examples import EXTRA, PreparedData, load_prepared
from reglaj.data.folding import fold
from reglaj.data.reading.batch import EXCERPT_CHARACTERS, excerpt

if TYPE_CHECKING:
    import pyarrow as pa

MOST = 20
"""Rows that are listed unless more are asked for; all are counted."""
_PLACES = ("id", "source", "line")
_VISIBLE = ("train", "validation")
_ID = re.compile(r"^([0-9a-f]{8,32})(#\d+)?$")
_FILE_AND_LINE = re.compile(r"^(?P<source>.+):(?P<line>\d+)$", re.DOTALL)
_BATCH_ROWS = 8_192


@dataclass(frozen=True, kw_only=True)
class Found:
    """A record that was meant. match: `exact`, `inside` (the words lie in its text), `id` or `place`.

    bucket: its part, or why it was dropped. reason: the sentence behind a drop. text, label: None in the test part.
    """

    match: str
    id: str
    source: str
    line: int
    bucket: str
    reason: str | None = None
    text: str | None = None
    label: str | None = None


class _Hits:
    """Rows that match, counted all and kept up to a number of each kind."""

    def __init__(self, most: int) -> None:
        self.counts: Counter[str] = Counter()
        self._most = most
        self._kept: dict[str, list[Found]] = {"id": [], "place": [], "exact": [], "inside": []}

    def add(self, found: Found) -> None:
        self.counts[found.match] += 1
        if len(self._kept[found.match]) < self._most:
            self._kept[found.match].append(found)

    def first(self) -> list[Found]:
        """The surest kinds first, within a kind in the order in which they came."""
        return [found for kept in self._kept.values() for found in kept][: self._most]


def where(
    run: str | Path,
    text: str,
    *,
    runs: str | Path = "runs",
    overrides: Iterable[str] = (),
    most: int = MOST,
    console: Console = SILENT,
) -> dict[str, Any]:
    """Records that a text, a part of one, an id or FILE:LINE means, and where each came from.

    run: a run's path or name, a data folder, or a recipe, whose prepared data are used. text: compared without regard
    to case, white space and Unicode form. Returns `found` (counts by kind of match) and `records`, the surest first.
    Raises `UserError` where nothing matches, with the row that comes nearest.
    """
    data = _data_of(str(run), Path(runs), list(overrides), console)
    wanted = fold(text)
    if not wanted:
        raise user_error(
            f"--where {text!r}",
            allowed="a text or a part of one, the id of a record, or FILE:LINE",
            why="every row holds nothing at all",
            remedy="give some words of the row",
        )
    hits = _Hits(most)
    _by_name(data, text.strip(), hits)
    if not hits.counts:
        _by_text(data, wanted, hits, console)
    if not hits.counts:
        raise _nothing(data, text, wanted, console)
    return {
        "where": text,
        "folder": str(data.folder),
        "key": data.key,
        "found": dict(hits.counts),
        "records": [asdict(found) for found in hits.first()],
    }


def _data_of(run: str, runs: Path, overrides: list[str], console: Console) -> PreparedData:
    """The prepared data that a run, a data folder or a recipe stands for."""
    path = Path(run)
    if path.is_file():
        from reglaj.pipelines.data import prepare_data

        folder = Path(prepare_data(path, runs=runs, quality=False, console=console, overrides=overrides)["folder"])
    elif overrides:
        raise user_error(
            f"{', '.join(overrides)} together with {run!r}",
            allowed="KEY=VALUE after a recipe",
            why="the data of a run are what they are",
            remedy="leave the keys out, or name the recipe in place of the run",
        )
    elif (path / "records.parquet").is_file():
        folder = path
    elif (runs / ".data" / run / "records.parquet").is_file():
        folder = runs / ".data" / run
    else:
        folder = _folder_of_run(find_run(run, runs))
    data = load_prepared(folder)
    if data is None:
        raise user_error(
            f"the data of {run!r} is not here: {folder}",
            allowed="a run whose data still lie beside it",
            why="runs point to their data, which lies once, and it was moved or removed",
            remedy="`reglaj data RECIPE` makes it again from the same sources; then name the recipe here",
        )
    return data


def _folder_of_run(path: Path) -> Path:
    return path.parent / ".data" / str(read_manifest(path).get("data_key") or "unknown")


def _by_name(data: PreparedData, name: str, hits: _Hits) -> None:
    """Records with that id (or the id of one of their examples), or that begin at that line of a file."""
    import pyarrow as pa
    import pyarrow.compute as pc

    as_id, as_place = _ID.match(name.casefold()), _FILE_AND_LINE.match(name)
    if not as_id and not as_place:
        return
    records = _table(data.folder / "records.parquet")
    if as_id:
        chosen = records.filter(pc.starts_with(records["id"], as_id[1]))
        for row in _described(data, chosen):
            hits.add(Found(match="id", **row))
    if as_place and not hits.counts:
        at_line = records.filter(pc.equal(records["line"], min(int(as_place["line"]), 2**62)))
        is_there = [_is_source(as_place["source"], source) for source in at_line["source"].to_pylist()]
        for row in _described(data, at_line.filter(pa.array(is_there, pa.bool_()))):
            hits.add(Found(match="place", **row))


def _is_source(asked: str, source: str) -> bool:
    """Whether a name means a source: the whole of it, or its last parts."""
    return asked == source or source.endswith(f"/{asked}") or Path(asked).resolve() == Path(source).resolve()


def _described(data: PreparedData, chosen: pa.Table) -> list[dict[str, Any]]:
    """Rows of records.parquet with the text and label that may be shown of each."""
    rows: list[dict[str, Any]] = chosen.to_pylist()
    ids = {row["id"] for row in rows}
    shown: dict[str, dict[str, Any]] = {}
    for part in _VISIBLE:
        if any(row["bucket"] == part for row in rows):
            for row, texts, label in _rows(data, part):
                if row["id"] in ids:
                    shown[row["id"]] = {"text": texts[0] if texts else None, "label": label}
    if any(row["bucket"] not in (*_VISIBLE, "test") for row in rows):
        shown |= {reject["id"]: {"text": reject["text"]} for reject in _rejects(data) if reject["id"] in ids}
    return [row | shown.get(row["id"], {}) for row in rows]


def _by_text(data: PreparedData, wanted: str, hits: _Hits, console: Console) -> None:
    """Records whose text is what is wanted, or holds it."""
    report = data.report
    total = int(report.get("read") or 0)
    with console.progress("searching", total, "rows") as advance:
        for part in _VISIBLE:
            for row, texts, label in _rows(data, part, advance):
                if kind := _match(texts, wanted):
                    shown = next((one for one in texts if wanted in fold(one)), None)
                    hits.add(Found(match=kind, bucket=part, text=shown, label=label, **row))
        for reject in _rejects(data):
            advance(1)
            if kind := _match_excerpt(reject["text"], wanted):
                hits.add(Found(match=kind, **reject))
        for row, texts, _ in _rows(data, "test", advance):
            if kind := _match(texts, wanted):
                hits.add(Found(match=kind, bucket="test", **row))


def _match(texts: list[str], wanted: str) -> str | None:
    folded = [fold(text) for text in texts]
    if wanted in folded:
        return "exact"
    return "inside" if any(wanted in text for text in folded) else None


def _match_excerpt(text: str, wanted: str) -> str | None:
    """Of a dropped record only the beginning is kept: what is wanted may go on where that ends."""
    kept = fold(text)
    if kept == wanted:
        return "exact"
    goes_on = len(text) >= EXCERPT_CHARACTERS and wanted.startswith(kept)
    return "inside" if wanted in kept or goes_on else None


def _rows(
    data: PreparedData, part: str, advance: Callable[[int], None] = lambda _: None
) -> Iterator[tuple[dict[str, Any], list[str], str | None]]:
    """(id, source and line; the texts; the label) of each row of a part."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    targets = _targets()
    try:
        with pq.ParquetFile(data.folder / f"{part}.parquet") as file:
            names = [name for name in file.schema_arrow.names if name not in _PLACES and not name.startswith(EXTRA)]
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*_PLACES, *names]):
                for row in batch.to_pylist():
                    cells = {name: row.pop(name) for name in names}
                    label = next((str(cells[name]) for name in names if name in targets), None)
                    yield row, [text for name in names if name not in targets for text in _texts(cells[name])], label
                advance(batch.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(data.folder / f"{part}.parquet", error) from error


def _targets() -> set[str]:
    """The columns that tasks predict: their cells are no texts to look in."""
    from reglaj.tasks import TASKS

    return {target for name in TASKS if (target := TASKS.get(name).roles.target)}


def _texts(cell: str | None) -> list[str]:
    """The texts in a cell: of a stored conversation the whole of it, then each of its turns."""
    if not cell:
        return []
    if cell.startswith('{"messages"'):
        from reglaj.data.conversation import Conversation

        turns = [str(message.get("content") or "") for message in Conversation.from_json(cell).messages]
        return ["\n".join(turns), *turns]
    return [cell]


def _rejects(data: PreparedData) -> Iterator[dict[str, Any]]:
    """Dropped records, with how each begins."""
    path = data.folder / "rejects.jsonl"
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield {"text": "", **json.loads(line)}
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _table(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> Exception:
    return environment_fault(
        f"cannot read {path}",
        allowed="prepared data as they were written",
        why=str(error),
        remedy="`reglaj data RECIPE` reads data that are gone from their sources again",
    )


def _nothing(data: PreparedData, text: str, wanted: str, console: Console) -> Exception:
    """Nothing matched: how much was searched, and the row that shares most words."""
    nearest = _nearest(data, wanted, console)
    searched = ", ".join(f"{int(data.report.get(part) or 0):,} {part}" for part in (*_VISIBLE, "test"))
    dropped = sum((data.report.get("dropped") or {}).values())
    return user_error(
        f"no record with {excerpt(text)!r}",
        allowed="a text or a part of one (case and white space do not matter), the id of a record, or FILE:LINE",
        why=f"none of {searched} and {dropped:,} dropped records holds it"
        f" (of dropped ones the first {EXCERPT_CHARACTERS} characters are kept)",
        remedy=f"the nearest row is {nearest}" if nearest else "give fewer words of it",
    )


def _nearest(data: PreparedData, wanted: str, console: Console) -> str | None:
    """The visible row that shares most of the wanted words, or None where none shares a third of them."""
    words = set(wanted.split())
    best, found = len(words) / 3, None
    with console.progress("looking for the nearest row", sum(int(data.report.get(p) or 0) for p in _VISIBLE)) as bar:
        for part in _VISIBLE:
            for row, texts, _ in _rows(data, part, bar):
                for one in texts:
                    have = set(fold(one).split())
                    shared = len(words & have) - 0.01 * len(have - words)  # of equal ones the shorter text
                    if shared > best:
                        best, found = shared, f"{excerpt(one)!r} ({row['source']}:{row['line']})"
    return found
