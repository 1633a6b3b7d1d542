"""What can always be made again and is kept to save the time: a folder for each set, capped in size, oldest use first.

A store is a folder of such sets, `<store>/<key>/` with a `manifest.json` whose time is that of the last use. A set is
whole or it is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from reglaj.core.files import disk_faults, is_alive
from reglaj.core.run_listing import size_of

MANIFEST = "manifest.json"


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
    with contextlib.suppress(FileNotFoundError):  # another process was quicker
        folder.rename(hidden)
        if hidden.is_dir() and not hidden.is_symlink():
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            hidden.unlink(missing_ok=True)


def sweep_sets(store: Path) -> None:
    """Clear what killed processes left half written or half removed."""
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
