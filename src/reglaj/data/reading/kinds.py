"""Which format a file is of: by its first bytes where they decide, by its name where they do not."""

from __future__ import annotations

import io
import re
from pathlib import PurePath

from reglaj.core.errors import UserError, user_error
from reglaj.data.reading.encodings import Encoding
from reglaj.data.reading.files import ALLOWED, PARQUET_MAGIC, SourceFile
from reglaj.data.reading.json_stream import JsonStream

_BY_SUFFIX = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_ARRAY_OF_OBJECTS = re.compile(r"\s*\[\s*\{")
_MAX_CONTROL_SHARE = 0.05
_CONTROLS = frozenset(map(chr, range(32))) - frozenset("\t\n\r\f\x1a\x1b")


def is_parquet(file: SourceFile) -> bool:
    """Whether the first bytes are those of Parquet."""
    return file.head.startswith(PARQUET_MAGIC)


def find_kind(file: SourceFile, encoding: Encoding | None, wanted: str | None) -> str:
    """The format to read `file` in. wanted: what the recipe says; it is checked against the first bytes."""
    if encoding is None:
        if wanted not in (None, "parquet"):
            raise _wrong_kind(file.name, str(wanted), "parquet")
        return "parquet"
    head = file.head[encoding.bom_bytes :].decode(encoding.codec, errors="reglaj.mark")
    _refuse_binary(file.name, head)
    if wanted == "parquet":
        raise _wrong_kind(file.name, "parquet", _kind_of_text(file, head))
    if wanted in ("json", "jsonl"):
        seen = _json_kind(head, file.is_whole_head)
        # One object on one line is both; so is what only one of the two can make sense of.
        if seen and seen != wanted and not _is_one_line(head):
            raise _wrong_kind(file.name, wanted, seen)
        if not seen and head.lstrip()[:1] not in ("{", "["):
            raise _wrong_kind(file.name, wanted, _kind_of_text(file, head))
    return wanted or _kind_of_text(file, head)


def _kind_of_text(file: SourceFile, head: str) -> str:
    suffix = PurePath(file.path.name.removesuffix(".gz")).suffix.lower()
    named = _BY_SUFFIX.get(suffix)
    seen = _json_kind(head, file.is_whole_head) if head.lstrip()[:1] in ("{", "[") else None
    if seen == "json" and named == "jsonl" and head.lstrip()[:1] == "{" and _is_one_line(head):
        return named  # one object on one line is both
    if seen:
        return seen
    # `[id],text` is a fine header: what begins like JSON and is none is JSON only by its name.
    return named if named and named != "parquet" else "csv"


def _json_kind(head: str, is_whole: bool) -> str | None:
    """`json` or `jsonl` if the text begins like one, else None."""
    first = head.lstrip()[:1]
    if first not in ("{", "["):
        return None
    lines = [line for line in head.split("\n") if line.strip()]
    if first == "{" and _parses(lines[0]):
        return "jsonl" if len(lines) > 1 else "json"
    if first == "[" and len(lines) > 1 and _parses(lines[0]):
        return None  # two arrays below each other: lines of lists, or a table whose header is `[a]`
    stream = JsonStream(io.StringIO(head), "")
    try:
        stream.value()
    except UserError:
        # The head ends inside the document, or the document is broken: its start has to do.
        return "json" if not is_whole or _ARRAY_OF_OBJECTS.match(head) else None
    return "json"


def _parses(line: str) -> bool:
    stream = JsonStream(io.StringIO(line), "")
    try:
        stream.value()
        stream.end()
    except UserError:
        return False
    return True


def _is_one_line(head: str) -> bool:
    return len([line for line in head.split("\n") if line.strip()]) == 1


def _refuse_binary(name: str, head: str) -> None:
    sample = head[:65_536]
    share = sum(char in _CONTROLS for char in sample) / max(1, len(sample))
    if share > _MAX_CONTROL_SHARE:
        raise user_error(
            f"{name!r} is a binary file",
            allowed=ALLOWED,
            why=f"{share:.0%} of its first characters are control characters, which text does not have",
            remedy="export the data as CSV in UTF-8",
        )


def _wrong_kind(name: str, wanted: str, seen: str) -> UserError:
    return user_error(
        f"{name!r} is not {wanted}",
        allowed=f"kind: {seen}, which it looks like",
        why="its first bytes say so",
        remedy=f"write `kind: {seen}`, or leave the kind out",
    )
