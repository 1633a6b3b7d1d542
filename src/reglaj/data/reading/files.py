"""Opening a source: it exists, it holds text or Parquet, and gzip is told by its first bytes."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from reglaj.core.errors import UserError, nearest, user_error

HEAD_BYTES = 1 << 18
ALLOWED = "CSV, TSV, JSON, JSON Lines or Parquet, plain or gzip"
_GZIP = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
# First bytes of what people hand in by mistake, with the way out.
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a ZIP archive or an Office document", "unpack it, or save the sheet as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file", "save the sheet as CSV in UTF-8"),
    (b"%PDF", "a PDF document", "export the table it holds as CSV"),
    (b"BZh", "a bzip2 archive", "unpack it first, or compress it with gzip"),
    (b"\xfd7zXZ", "an xz archive", "unpack it first, or compress it with gzip"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "unpack it first, or compress it with gzip"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it first, or compress it with gzip"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"ARROW1", "an Arrow (Feather) file", "write it as Parquet"),
    (b"\x89PNG", "a PNG picture", "name the file with the table"),
    (b"\xff\xd8\xff", "a JPEG picture", "name the file with the table"),
    (_GZIP, "gzip inside gzip", "unpack it once"),
)
T = TypeVar("T")


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Undecodable bytes become lone surrogates, so that lines keep their places and only they are lost."""
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("reglaj.mark", _mark)


class _Unpacked(gzip.GzipFile):
    """Closes the packed file with itself, which the base does not do for a file that it was handed."""

    def close(self) -> None:
        packed = cast("IO[bytes] | None", self.fileobj)
        super().close()
        if packed is not None:
            packed.close()


@dataclass
class SourceFile:
    """A file that exists and is no folder. head: its first bytes, unpacked."""

    path: Path
    name: str
    size: int
    compression: str | None
    head: bytes = field(repr=False)
    _raw: IO[bytes] | None = field(default=None, repr=False)

    @property
    def is_whole_head(self) -> bool:
        """Whether `head` is all there is."""
        return len(self.head) < HEAD_BYTES

    @property
    def position(self) -> int:
        """Bytes of the file consumed by the latest `open`, for progress."""
        return 0 if self._raw is None or self._raw.closed else self._raw.tell()

    def open(self) -> IO[bytes]:
        """The unpacked bytes from the start."""
        raw = self.path.open("rb")
        self._raw = raw
        return cast("IO[bytes]", _Unpacked(fileobj=raw)) if self.compression == "gzip" else raw

    def open_text(self, codec: str, bom_bytes: int, newline: str) -> io.TextIOWrapper:
        """The text behind the byte order mark. newline: as for `open`, but nothing is ever translated."""
        stream = self.open()
        stream.read(bom_bytes)
        return io.TextIOWrapper(cast("Any", stream), encoding=codec, errors="reglaj.mark", newline=newline)


def open_file(path: Path, name: str) -> SourceFile:
    """The file under `path`. Raises `UserError` when it is missing, a folder, empty or of a foreign kind."""
    if path.is_dir():
        raise user_error(
            f"{name!r} is a folder",
            allowed=f"one file: {ALLOWED}",
            why="a source is read file by file",
            remedy="name the files in it, one source each",
        )
    if not path.exists():
        raise _missing(path, name)
    file = SourceFile(path=path, name=name, size=0, compression=None, head=b"")
    try:
        with path.open("rb") as raw:
            file.compression = "gzip" if raw.read(2) == _GZIP else None
        file.size = path.stat().st_size
        with file.open() as stream:
            file.head = stream.read(HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(name, error) from error
    _refuse_foreign(file)
    return file


def _missing(path: Path, name: str) -> UserError:
    beside = [entry.name for entry in path.parent.iterdir() if entry.is_file()] if path.parent.is_dir() else []
    guess = nearest(path.name, beside)
    return user_error(
        f"there is no file {name!r}",
        allowed=f"an existing file: {ALLOWED}",
        why=f"{str(path)!r} does not exist",
        remedy=f"did you mean {guess!r}?" if guess else "check the path; a recipe's paths start from its own folder",
    )


def _refuse_foreign(file: SourceFile) -> None:
    if not file.head.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
        raise user_error(
            f"{file.name!r} is empty",
            allowed="a file with records in it",
            why=f"it has {file.size} bytes and none of them is text",
            remedy="check how the file was written, or name another one",
        )
    for magic, what, remedy in _FOREIGN:
        if file.head.startswith(magic):
            raise user_error(f"{file.name!r} is {what}", allowed=ALLOWED, why="its first bytes say so", remedy=remedy)


def unreadable(name: str, error: Exception) -> UserError:
    """The error for a file that the disk or its compression does not give up."""
    is_packing = isinstance(error, gzip.BadGzipFile) or not isinstance(error, OSError)
    why = "its compressed data is broken or cut off" if is_packing else (getattr(error, "strerror", None) or str(error))
    return user_error(
        f"cannot read {name!r}",
        allowed="a whole file that you may read",
        why=why,
        remedy="copy or download it again, or check its permissions",
    )


def guarded(name: str, items: Iterator[T]) -> Iterator[T]:
    """`items`, with trouble while reading (disk, gzip) turned into a `UserError` that names the file."""
    try:
        yield from items
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, UserError) or hasattr(error, "problems"):
            raise
        raise unreadable(name, error) from error
