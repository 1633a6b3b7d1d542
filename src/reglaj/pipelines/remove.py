"""Remove runs, and the data that no other run points to.

What goes is first renamed to a hidden name, all of it or nothing, and deleted only then: a removal that dies leaves no
run that is half there. The next removal deletes what it left, and what other killed processes left in these folders.
`openings.jsonl` stays: how often test rows were opened is counted for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import EnvironmentFault, Problem, UserError, environment_fault, listing, nearest
from reglaj.core.files import disk_faults, is_alive
from reglaj.core.run_listing import (
    DATA,
    EMBEDDINGS,
    STATES,
    TOKENS,
    RunSummary,
    data_folders,
    kept_folders,
    list_runs,
    size_of,
)
from reglaj.core.runs import locked, read_manifest

_LEFT = re.compile(r"\.(?P<name>.+?)\.(?:(?P<process>\d+)\.)?[0-9a-f]{8}\.(?P<kind>tmp|old)")


@dataclass(frozen=True, kw_only=True)
class DoomedData:
    """A data folder that nothing will point to. sources: their names, as far as its report can be read."""

    path: Path
    size_bytes: int
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What goes. states: tokens of that data and what models made of them; left: folders that killed processes
    left; both with their sizes in bytes."""

    runs: tuple[RunSummary, ...]
    data: tuple[DoomedData, ...]
    left: tuple[tuple[Path, int], ...]
    states: tuple[tuple[Path, int], ...] = ()

    @property
    def size_bytes(self) -> int:
        """Of all of it."""
        parts = [run.size_bytes for run in self.runs], [data.size_bytes for data in self.data]
        return sum(map(sum, parts)) + sum(size for _, size in (*self.left, *self.states))

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What was agreed to, however big it has become since. `created` tells a run from a later one of its number."""
        return (
            *((run.path.name, run.created) for run in self.runs),
            *((data.path.name,) for data in self.data),
        )


def remove_runs(
    names: Sequence[str],
    *,
    runs: str | Path = "runs",
    agree: Callable[[Removal], bool] | None = None,
    console: Console = SILENT,
) -> dict[str, Any]:
    """Remove runs and the data that only they point to; returns `removed`, `data_removed` and `freed_bytes`.

    names: exact names of folders in `runs`, or paths of them. agree: is shown what goes, and says whether it may;
    None asks nobody. All or nothing: raises `UserError` for names that are no runs, `EnvironmentFault` for a run in
    use, each with every problem at once.
    """
    folder = Path(runs)
    plan = plan_removal(names, runs=folder)
    if agree and not agree(plan):
        return {"removed": [], "data_removed": [], "freed_bytes": 0}
    # Under the lock that `begin_run` takes, so that no run begins on data that is on its way out.
    with locked(folder, wait=True):
        agreed, plan = plan, plan_removal(names, runs=folder)
        if plan.names != agreed.names:
            raise environment_fault(
                f"the runs in {str(folder)!r} have changed meanwhile",
                allowed="removing exactly what was shown",
                why="another process has made or removed runs, so that more or less would go now",
                remedy="give the same command again and look at what it shows",
            )
        with contextlib.ExitStack() as held:
            for run in plan.runs:
                held.enter_context(locked(run.path))
            states = [path for path, _ in plan.states]
            hidden = _hide([run.path for run in plan.runs] + [data.path for data in plan.data] + states)
    # The lock is given back: deleting may take long, and nobody can reach these any more.
    _delete([*hidden, *(path for path, _ in plan.left)], console)
    return {
        "removed": [run.path.name for run in plan.runs],
        "data_removed": [data.path.name for data in plan.data],
        "freed_bytes": plan.size_bytes,
    }


def plan_removal(names: Sequence[str], *, runs: str | Path = "runs") -> Removal:
    """What `remove_runs` would remove; changes nothing, and raises the same errors."""
    folder = Path(runs)
    listed = list_runs(folder)
    chosen = _choose(names, folder, listed)
    left = _left_behind(folder)
    going = {run.path for run in chosen}
    needed = {run.data_key for run in listed if run.path not in going}
    # A removal that died had hidden its runs, and perhaps not yet their data.
    keys = {run.data_key for run in chosen} | {_data_key(path) for path in left if path.parent == folder}
    doomed = [data for data in _own_data(folder) if data.name in keys - needed]
    states = [path for path, key in _own_states(folder) if key in keys - needed]
    states += _embeddings(folder) if doomed else []
    return Removal(
        runs=tuple(chosen),
        data=tuple(DoomedData(path=path, size_bytes=size_of(path), sources=_sources(path)) for path in doomed),
        left=tuple((path, size_of(path)) for path in left),
        states=tuple((path, size_of(path)) for path in states),
    )


def _choose(names: Sequence[str], folder: Path, listed: Iterable[RunSummary]) -> list[RunSummary]:
    """The runs of these names, each once. Raises for all that are none or may not go."""
    known = {run.path.name: run for run in listed}
    wrong: list[Problem] = []
    chosen: dict[str, RunSummary] = {}
    for text in names:
        name = _name_in(folder, text)
        run = known.get(name) if name else None
        if run is None:
            wrong.append(_no_run(text, name, folder, list(known)))
        elif run.path.is_symlink():
            wrong.append(_a_link(run.path))
        else:
            chosen[run.path.name] = run
    busy = [_in_use(run) for run in chosen.values() if run.status == "in use"]
    if wrong:
        raise UserError(*wrong, *busy)
    if busy:
        raise EnvironmentFault(*busy)
    return list(chosen.values())


def _name_in(folder: Path, text: str) -> str | None:
    """The name of the entry of the runs folder that a user means, or None where it lies elsewhere.

    The entry itself is not resolved: a link is a link, wherever it leads.
    """
    path = Path(text)
    if path.name in ("", ".."):
        return None
    is_inside = len(path.parts) == 1 or os.path.realpath(path.parent) == os.path.realpath(folder)
    return path.name if is_inside else None


def _no_run(text: str, name: str | None, folder: Path, known: list[str]) -> Problem:
    numbered = [run for run in known if run.rpartition("-")[0] == name]
    guess = nearest(name or Path(text).name, known)
    if name is None:
        why = f"it does not lie in {str(folder)!r}; give --runs DIR for another folder"
    elif numbered:
        why = "it is a recipe's name, and which of its runs goes must be said"
    else:
        why = f"{str(folder)!r} has no run of that name"
    if numbered:
        remedy = f"name them: {' '.join(numbered[:20])}"
    else:
        remedy = f"did you mean {guess!r}?" if guess else "list them with `reglaj runs`"
    allowed = listing(known) if known else f"the exact name of a run ({str(folder)!r} has none)"
    return Problem(given=f"{text!r} is not a run that can be removed", allowed=allowed, why=why, remedy=remedy)


def _a_link(path: Path) -> Problem:
    return Problem(
        given=f"{str(path)!r} is a symbolic link",
        allowed="folders that lie in the runs folder themselves",
        why="links are not followed, so that nothing outside that folder is removed",
        remedy="remove the link, and the run where it lies (--runs DIR)",
    )


def _in_use(run: RunSummary) -> Problem:
    return Problem(
        given=f"{str(run.path)!r} is in use by process {run.process or '?'}",
        allowed="runs that no process works on",
        why="its files would vanish under that process; nothing was removed",
        remedy="wait for it or stop it, then give the same command again",
    )


def _own_data(runs: Path) -> list[Path]:
    """Data folders that lie in the runs folder themselves. Links are left alone, as everywhere here."""
    if (runs / DATA).is_symlink():
        return []
    return [path for path in data_folders(runs) if not path.is_symlink()]


def _is_linked(folder: Path, runs: Path) -> bool:
    """Whether there is a link on the way from the runs folder."""
    return any(path.is_symlink() for path in (folder, *folder.parents) if path.is_relative_to(runs) and path != runs)


def _own_states(runs: Path) -> list[tuple[Path, str | None]]:
    """The same of kept states and tokens: texts can be guessed from them, so they go with the texts."""
    found = [(path, key) for path, key in kept_folders(runs) if key and not path.is_symlink()]
    return [(path, key) for path, key in found if not _is_linked(path.parent, runs)]


def _embeddings(runs: Path) -> list[Path]:
    """Kept embeddings. A text is embedded once for all data that have it, so with any data all go: they are made again
    for what stays."""
    store = runs / EMBEDDINGS
    if not store.is_dir() or _is_linked(store, runs):
        return []
    return [path for path in sorted(store.iterdir()) if not path.name.startswith(".") and not path.is_symlink()]


def _data_key(folder: Path) -> str | None:
    key = read_manifest(folder).get("data_key")
    return key if isinstance(key, str) else None


def _sources(data: Path) -> tuple[str, ...]:
    try:
        sources = json.loads((data / "report.json").read_bytes())["sources"]
        return tuple(str(source["name"]) for source in sources)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _left_behind(runs: Path) -> list[Path]:
    """Hidden folders beside the runs, their data and what is kept of it that no living process will come back to."""
    found: list[Path] = []
    for folder in (runs, runs / DATA, runs / STATES, runs / TOKENS, runs / EMBEDDINGS):
        if folder.is_dir() and (folder == runs or not _is_linked(folder, runs)):
            found += [path for path in sorted(folder.iterdir()) if _is_left(path)]
    return found


def _is_left(path: Path) -> bool:
    match = _LEFT.fullmatch(path.name)
    if match is None or path.is_symlink() or not path.is_dir():
        return False
    if match["process"] is None:  # what a new folder has replaced: nobody needs it; of a new one, nobody can tell
        return match["kind"] == "old"
    return not is_alive(int(match["process"]))


def _hide(folders: Sequence[Path]) -> list[Path]:
    """Rename all folders to hidden names, or none; durable when this returns."""
    done: list[tuple[Path, Path]] = []
    with _back_on_failure(done):
        for folder in folders:
            hidden = folder.with_name(f".{folder.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.old")
            with disk_faults(folder):
                folder.rename(hidden)
            done.append((folder, hidden))
        for parent in {folder.parent for folder in folders}:
            with disk_faults(parent):
                _fsync(parent)
    return [hidden for _, hidden in done]


@contextlib.contextmanager
def _back_on_failure(done: list[tuple[Path, Path]]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for folder, hidden in reversed(done):
            with contextlib.suppress(OSError):
                hidden.rename(folder)
        raise


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _delete(folders: Sequence[Path], console: Console) -> None:
    """Delete hidden folders, as many as can be. Raises `EnvironmentFault` naming what could not."""
    failed: list[OSError] = []
    with console.progress("deleting", len(folders), "folders") as advance:
        for folder in folders:
            try:
                shutil.rmtree(folder)
            except FileNotFoundError:  # another removal was quicker
                shutil.rmtree(folder, ignore_errors=True)
            except OSError as error:
                failed.append(error)
            advance(1)
    if failed:
        raise EnvironmentFault(*(_not_deleted(error) for error in failed)) from failed[0]


def _not_deleted(error: OSError) -> Problem:
    return Problem(
        given=f"cannot delete {str(error.filename)!r}",
        allowed="files and folders that may be deleted",
        why=f"{error.strerror or error}; the runs are gone from the list, but these files still take room",
        remedy="mend that; the next `reglaj runs rm` deletes what is left",
    )
