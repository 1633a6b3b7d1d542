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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.files import new_folder, write_json
from reglaj.core.kept_sets import MANIFEST

FORMAT = 1
FILE = "states.bin"
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
