"""Hidden states on disk: whole or absent, seen to be what they were before they are used, and capped in size.

A folder of its own per set of rows, `<store>/<key>/` with `states.bin` (one row of D values after the other) and
`manifest.json`. What lies there can always be made again, so a damaged one is thrown away, not mourned.

Legend: N states, D width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.files import disk_faults, is_alive, new_folder, write_json
from reglaj.core.run_listing import size_of

FORMAT = 1
FILE, MANIFEST = "states.bin", "manifest.json"
PIECE = 1 << 24
_KINDS: dict[str, tuple[torch.dtype, type]] = {
    "float32": (torch.float32, np.float32),
    "float16": (torch.float16, np.float16),
    "bfloat16": (torch.bfloat16, np.int16),  # numpy has none: the same bits under another name
}
Add = Callable[[Tensor], None]


class DamagedError(Exception):
    """A folder that does not hold what was asked for; the text says why."""


@dataclass(frozen=True)
class StoredStates:
    """values: (N, D), mapped from the file. dtype: what they are; see `_KINDS`."""

    values: np.ndarray[Any, Any]
    dtype: torch.dtype


def write_states(
    folder: Path, key: str, shape: tuple[int, int], facts: dict[str, Any], fill: Callable[[Add], None]
) -> None:
    """Put a new set under `folder`, all of it or nothing.

    fill: hands pieces (n, D) of all N states to the function that it is given. facts: more for the manifest. Raises
    `EnvironmentFault` when the disk refuses.
    """
    with new_folder(folder) as temporary:
        digest, kinds, count = hashlib.sha256(), set(), 0
        with (temporary / FILE).open("wb") as file:

            def add(states: Tensor) -> None:
                nonlocal count
                if not count:  # room for all of it now or never, rather than after an hour
                    _reserve(file.fileno(), shape[0] * shape[1] * states.element_size())
                kinds.add(str(states.dtype).removeprefix("torch."))
                data = states.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
                file.write(data)
                digest.update(data)
                count += len(states)

            fill(add)
            size = file.tell()
        (kind,) = kinds
        assert count == shape[0], "every state is written once"
        known = {"format": FORMAT, "key": key, "dtype": kind, "shape": list(shape)}
        write_json(temporary / MANIFEST, {**facts, **known, "bytes": size, "sha256": digest.hexdigest()})


def _reserve(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)


def open_states(
    folder: Path, key: str, shape: tuple[int, int], console: Console = SILENT, *, is_new: bool = False
) -> StoredStates | None:
    """The states in a folder, or None where there is no such folder. Raises `DamagedError` for any other content.

    is_new: this process has just written them, so they are not read through once more.
    """
    if not folder.exists() and not folder.is_symlink():
        return None
    manifest = _read_manifest(folder)
    if manifest.get("format") != FORMAT or manifest.get("key") != key or manifest.get("shape") != list(shape):
        raise DamagedError("it is of other rows or another version")
    kind = _KINDS.get(str(manifest.get("dtype")))
    if kind is None:
        raise DamagedError("its numbers are of an unknown kind")
    dtype, numbers = kind
    size = shape[0] * shape[1] * np.dtype(numbers).itemsize
    path = folder / FILE
    try:
        found = path.stat().st_size
        if found != size or manifest.get("bytes") != size:
            raise DamagedError(f"{FILE} has {found:,} bytes instead of {size:,}")
        if not is_new and _sha256(path, console) != manifest.get("sha256"):
            raise DamagedError(f"{FILE} was changed")
        values = np.memmap(path, dtype=numbers, mode="r", shape=shape)
    except OSError as error:
        raise DamagedError(f"it cannot be read ({error.strerror or error})") from error
    with contextlib.suppress(OSError):
        (folder / MANIFEST).touch()  # used just now: others go first when room is needed
    return StoredStates(values.view(np.ndarray), dtype)


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedError(f"its {MANIFEST} cannot be read") from error
    if not isinstance(manifest, dict):
        raise DamagedError(f"its {MANIFEST} cannot be read")
    return manifest


def _sha256(path: Path, console: Console) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with console.progress("reading kept states", size // PIECE, "pieces") as advance, path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            advance(1)
    return digest.hexdigest()


def make_room(store: Path, needed: int, most: int, keep: set[str]) -> int:
    """Remove the sets that were used longest ago until `needed` bytes more make at most `most`; how many went.

    Never those named in `keep`. Who has one mapped keeps it: the file goes when nobody looks at it any more.
    """
    with disk_faults(store):
        sets = sorted(_sets(store), key=_last_use)
        used = sum(map(size_of, sets)) + needed
        gone = 0
        for folder in sets:
            if used <= most:
                break
            if folder.name not in keep:
                used -= size_of(folder)
                throw_away(folder)
                gone += 1
        return gone


def _sets(store: Path) -> list[Path]:
    if not store.is_dir():
        return []
    return [folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith(".")]


def _last_use(folder: Path) -> float:
    for path in (folder / MANIFEST, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def is_too_much(store: Path, needed: int) -> bool:
    """Whether `needed` bytes are more than half of what is free on the disk: checkpoints come after us."""
    there = next(folder for folder in (store, *store.parents) if folder.is_dir())
    with disk_faults(store):
        return needed > shutil.disk_usage(there).free // 2


def throw_away(folder: Path) -> None:
    """Remove what lies under a name; whoever looks meanwhile finds it whole or not at all."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.old")
    with contextlib.suppress(FileNotFoundError):  # another training was quicker
        folder.rename(hidden)
        if hidden.is_dir() and not hidden.is_symlink():
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            hidden.unlink(missing_ok=True)


def sweep_states(store: Path) -> None:
    """Clear what killed trainings left half written or half removed."""
    with disk_faults(store):
        for left in _abandoned(store):
            shutil.rmtree(left, ignore_errors=True)


def _abandoned(store: Path) -> Iterator[Path]:
    if not store.is_dir():
        return
    for path in store.iterdir():
        parts = path.name.split(".")  # .<key>.<process>.<random>.tmp or .old
        if len(parts) == 5 and parts[4] in ("tmp", "old") and parts[2].isdigit() and not is_alive(int(parts[2])):
            yield path
