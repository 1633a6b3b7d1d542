"""Run folders: numbers, identities, manifests, and finding a run by what a user typed.

A run's identity is the hash of its resolved recipe and its data key; the same identity is the same run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, Literal

from reglaj.core.errors import environment_fault, listing, nearest, user_error
from reglaj.core.files import disk_faults, new_folder, sha256_file, write_json

LOCK = ".lock"
_LOOKING_S = 0.5
"""How long a lock may be held by somebody who only asks whether it is (see `run_listing`)."""
Status = Literal["new", "unfinished", "finished"]
_NUMBERED = re.compile(r"^(?P<name>.+)-(?P<number>\d{3,})$")
_LIBRARIES = ("reglaj", "torch", "transformers", "peft", "safetensors", "pyarrow", "numpy", "scikit-learn")


def begin_run(
    runs: Path, name: str, identity: str, *, fresh: bool = False, facts: Mapping[str, Any] | None = None
) -> tuple[Path, Status]:
    """The folder for a run of this identity, made if there is none, and how far it is.

    `fresh` always takes a new number. The folder of a new run holds a manifest with status `running` and the `facts`.
    """
    with disk_faults(runs):
        runs.mkdir(parents=True, exist_ok=True)
    with locked(runs, wait=True):  # so that two processes at one moment agree on one folder
        return _take_folder(runs, name, {"identity": identity, **(facts or {})}, fresh=fresh)


def _take_folder(runs: Path, name: str, facts: dict[str, Any], *, fresh: bool) -> tuple[Path, Status]:
    existing = _numbered_folders(runs, name)
    if not fresh:
        for _, folder in reversed(existing):
            manifest = read_manifest(folder)
            if manifest.get("identity") == facts["identity"]:
                return folder, "finished" if manifest.get("status") == "finished" else "unfinished"
    folder = runs / f"{name}-{existing[-1][0] + 1 if existing else 1:03d}"
    manifest = {**facts, "status": "running", "created": _now(), "software": software(), "git": git_state()}
    with new_folder(folder) as target:  # a folder without a manifest would be half a run
        write_manifest(target, manifest)
    return folder, "new"


def run_before(folder: Path) -> Path | None:
    """The run of the same name with the next lower number that has a manifest, or None."""
    match = _NUMBERED.match(folder.name)
    if not match:
        return None
    lower = [(number, path) for number, path in _numbered_folders(folder.parent, match["name"]) if path != folder]
    return next(
        (path for number, path in reversed(lower) if number < int(match["number"]) and read_manifest(path)), None
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run, or an empty mapping where there is none that can be read."""
    try:
        value = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Replace the manifest atomically."""
    write_json(folder / "manifest.json", manifest)


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """The folder is ours alone inside the block. Raises `EnvironmentFault` while another process has it, or waits.

    The lock is the operating system's: that of a process that died, however it died, is gone with it.
    """
    if importlib.util.find_spec("fcntl") is None:  # Windows: nothing to lock with
        yield
        return
    with disk_faults(folder):
        file = (folder / LOCK).open("a+", encoding="utf-8")
    with file:
        try:
            _take_lock(file, wait=wait)
        except BlockingIOError as error:
            file.seek(0)
            raise environment_fault(
                f"{folder} is in use by process {file.read().strip() or '?'}",
                allowed="one process in a run at a time",
                why="two would write over each other",
                remedy="wait for it, or take a new run with --fresh",
            ) from error
        except OSError as error:
            raise environment_fault(
                f"cannot lock {folder}",
                allowed="a file system that knows locks",
                why=error.strerror or str(error),
                remedy="put the runs on another file system (--runs DIR)",
            ) from error
        with disk_faults(folder):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def _take_lock(file: IO[str], *, wait: bool) -> None:
    """Raises `BlockingIOError` where another process has it all the while; one that only looks has it briefly."""
    import fcntl

    deadline = time.monotonic() + _LOOKING_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOKING_S / 20)


def finish_run(folder: Path, facts: dict[str, Any], begun: Mapping[str, Any]) -> None:
    """Mark a run finished: adds `facts` and the SHA-256 of every file but the manifest itself.

    begun: the manifest as it was, for one that was removed under the run.
    """
    files = {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path not in (folder / "manifest.json", folder / LOCK)
    }
    ended = {"status": "finished", "finished": _now(), "files": files}
    write_manifest(folder, (read_manifest(folder) or dict(begun)) | facts | ended)


def find_run(text: str, runs: Path = Path("runs")) -> Path:
    """The run folder that `text` names: a path, a folder in `runs`, or a name (then its latest finished run).

    Raises `UserError` when there is none.
    """
    for candidate in (Path(text), runs / text):
        if (candidate / "manifest.json").is_file():
            return candidate
    finished = [
        folder for _, folder in _numbered_folders(runs, text) if read_manifest(folder).get("status") == "finished"
    ]
    if finished:
        return finished[-1]
    known = [folder.name for folder in _all_runs(runs)]
    guess = nearest(text, known)
    if Path(text).is_dir():
        why = "the folder has no manifest.json, so it is not a run"
    else:
        why = f"no such folder, and {str(runs)!r} has no run of that name"
    raise user_error(
        f"{text!r} is not a run",
        allowed=listing(known) if known else f"a run folder ({str(runs)!r} has none yet)",
        why=why,
        remedy=f"did you mean {guess!r}?"
        if guess
        else "list them with `reglaj runs`, or train one with `reglaj train RECIPE`",
    )


def software() -> dict[str, str]:
    """Versions of what decides a result: Python, ourselves and the libraries below us."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            continue
    return versions


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory's checkout and whether it has changes; None outside a checkout or without git."""
    try:
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "has_changes": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=5)  # noqa: S607
    return done.stdout.strip()


def _numbered_folders(runs: Path, name: str) -> list[tuple[int, Path]]:
    if not runs.is_dir():
        return []
    found = []
    for folder in runs.iterdir():
        match = _NUMBERED.match(folder.name)
        if match and match["name"] == name and folder.is_dir():
            found.append((int(match["number"]), folder))
    return sorted(found)


def _all_runs(runs: Path) -> list[Path]:
    if not runs.is_dir():
        return []
    # Hidden ones are on their way out.
    folders = (folder for folder in runs.iterdir() if not folder.name.startswith("."))
    return sorted(folder for folder in folders if (folder / "manifest.json").is_file())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
