"""Files that are whole or absent: write to a temporary name, fsync, rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reglaj.core.errors import environment_fault


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` under `path` atomically and durably. Raises `EnvironmentFault` when the disk refuses."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_faults(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _fsync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 text under `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Put a JSON document under `path` atomically; NaN and infinity are refused, for JSON has none."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False) + "\n")


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends well and vanishes when it does not.

    An older folder under `path` is replaced only at the very end.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    with disk_faults(path):
        _sweep_abandoned(path)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _fsync_folder(file) if file.is_dir() else _fsync_file(file)
            _fsync_folder(temporary)
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            if path.exists():
                path.rename(old)
            try:
                temporary.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
            _fsync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """Turn an `OSError` about `path` into an `EnvironmentFault` (exit code 4)."""
    try:
        yield
    except OSError as error:
        if hasattr(error, "problems"):  # one of ours already
            raise
        raise environment_fault(
            f"cannot write {str(error.filename or path)!r}",
            allowed="a folder that can be written to, with room on its disk",
            why=error.strerror or str(error),
            remedy="make room or choose another folder (--runs DIR; REGLAJ_HOME for the cache), then run it again",
        ) from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def canonical_hash(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def sweep(folder: Path) -> None:
    """Clear what killed writers left directly in a folder that is ours alone.

    Temporary files and folders go; an older folder that was about to be replaced comes back where nothing has.
    """
    with disk_faults(folder):
        for old in folder.glob(".*.old"):
            replaced = folder / old.name.removeprefix(".").rsplit(".", 2)[0]
            if not replaced.exists():
                old.rename(replaced)
        for left in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _sweep_abandoned(path: Path) -> None:
    """Remove what a killed process left of this folder: it may hold personal data. Living processes keep theirs."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        process = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if process.isdigit() and not is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def is_alive(process: int) -> bool:
    """Whether a process that left a name with its number may still be at work on it."""
    # In a container every process may have the same number: what bears ours was left by one before us, unless
    # another thread is at work.
    if process == os.getpid():
        return threading.active_count() > 1
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
