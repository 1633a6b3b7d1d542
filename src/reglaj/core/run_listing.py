"""Which runs lie in a folder, how far each of them is, and what they take on the disk. Nothing is written here.

Whether a run is in use, its lock alone can tell: a manifest says `running` for ever when its process was killed. The
operating system has no question for that, so the lock is taken, shared, and given back at once; on a file opened for
reading, so that this works on a read-only folder and creates nothing. Who wants the lock in that very instant is
refused it once; that is why `reglaj.core.runs.locked` asks for a while before it says that a run is in use.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reglaj.core.errors import user_error
from reglaj.core.runs import LOCK

DATA = ".data"
"""The folder beside the runs in which their data lies, each set once."""
STATES = ".cache/trunk"
"""The folder beside the runs in which what frozen layers made of rows is kept."""
TOKENS = ".cache/tokens"
"""The folder beside the runs in which the tokens of their texts are kept."""
EMBEDDINGS = ".cache/embeddings"
"""The folder beside the runs in which embeddings of texts are kept, model by model."""
_NAMED_LIKE_A_RUN = re.compile(r".+-\d{3,}")
_CHECKPOINT = re.compile(r"step-(\d{6,})")
_MOST = 1e300
"""What is no figure: infinity, not-a-number (which JSON has not), and integers that are no float."""
_KNOWN = ("running", "interrupted", "failed", "finished")


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One line of `reglaj runs`.

    status: `finished`, `in use`, `interrupted`, `failed`, or `damaged` where there is no manifest to go by.
    reason: why it failed or is damaged. gate: `passed` or `failed` where the recipe has one and the run is finished.
    process: who uses it, where that is known. step: of the newest checkpoint.
    age_s: since `created`, never negative. size_bytes: of the files in its folder; its data lies elsewhere.
    """

    path: Path
    status: str
    task: str
    method: str
    created: str
    headline: dict[str, Any]
    age_s: int | None
    size_bytes: int
    step: int | None
    total_steps: int | None
    process: int | None
    reason: str | None
    data_key: str | None
    gate: str | None = None


def list_runs(runs: Path) -> list[RunSummary]:
    """Every run below `runs`, half ones too, oldest first. Raises `UserError` when that is a file."""
    if runs.exists() and not runs.is_dir():
        raise user_error(
            f"{str(runs)!r} is a file",
            allowed="the folder in which runs lie",
            why="a file holds no runs",
            remedy="name the folder with --runs DIR",
        )
    now = time.time()
    summaries = [_summary(folder, now) for folder in _folders(runs)]
    return sorted(summaries, key=lambda summary: (summary.created, summary.path.name))


def holder_of(folder: Path) -> int | None:
    """The process that has the run's lock (0 where the lock does not say which), or None where nobody has."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is ever locked
        return None
    try:
        with (folder / LOCK).open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                said = file.read(20).strip()
                return int(said) if said.isdigit() else 0
    except OSError:  # there is none, or it may not be read
        pass
    return None


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder. Links are not followed; what vanishes meanwhile does not count."""
    size, waiting = 0, [os.fspath(folder)]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    with contextlib.suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_size
    return size


def data_folders(runs: Path) -> list[Path]:
    """The data sets beside the runs, by name; those that are still being written are not among them."""
    store = runs / DATA
    if not store.is_dir():
        return []
    return sorted(folder for folder in store.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def kept_folders(runs: Path) -> list[tuple[Path, str | None]]:
    """What is kept of rows to save time, states and tokens, set by set, each with the key of the data they are of."""
    stores = [runs / store for store in (STATES, TOKENS)]
    folders = [folder for store in stores if store.is_dir() for folder in sorted(store.iterdir())]
    named = [folder for folder in folders if folder.is_dir() and not folder.name.startswith(".")]
    return [(folder, _text(_read(folder)[0], "data_key")) for folder in named]


def _folders(runs: Path) -> Iterator[Path]:
    if not runs.is_dir():
        return
    for folder in runs.iterdir():
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        if _NAMED_LIKE_A_RUN.fullmatch(folder.name) or (folder / "manifest.json").is_file():
            yield folder


def _summary(folder: Path, now: float) -> RunSummary:
    manifest, damage = _read(folder)
    status, reason, process = manifest.get("status"), _text(manifest, "reason") or None, holder_of(folder)
    if process is not None:
        status, reason = "in use", None
    elif damage:
        status, reason = "damaged", damage
    elif status == "running":
        status = "interrupted"
    created = _text(manifest, "created") or ""
    total = manifest.get("total_steps")
    return RunSummary(
        path=folder,
        status=str(status),
        task=_text(manifest, "task") or "",
        method=_text(manifest, "method") or "",
        created=created,
        headline=_figures(manifest.get("headline")),
        age_s=_seconds_since(created, now),
        size_bytes=0 if folder.is_symlink() else size_of(folder),
        step=_newest_step(folder / "checkpoints"),
        total_steps=total if type(total) is int else None,
        process=process or None,
        reason=reason,
        data_key=_text(manifest, "data_key"),
        gate=_gate(manifest) if status == "finished" else None,
    )


def _read(folder: Path) -> tuple[dict[str, Any], str | None]:
    """The manifest, and what is wrong with it if nothing can be told by it."""
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
    except FileNotFoundError:
        return {}, "no manifest.json"
    except (OSError, ValueError, RecursionError):
        return {}, "manifest.json cannot be read"
    if not isinstance(manifest, dict):
        return {}, "manifest.json cannot be read"
    return manifest, None if manifest.get("status") in _KNOWN else "manifest.json has no known status"


def _text(manifest: Mapping[str, Any], key: str) -> str | None:
    value = manifest.get(key)
    return value if isinstance(value, str) else None


def _gate(manifest: Mapping[str, Any]) -> str | None:
    gate = manifest.get("gate")
    passed = gate.get("passed") if isinstance(gate, dict) else None
    return None if not isinstance(passed, bool) else "passed" if passed else "failed"


def _figures(headline: Any) -> dict[str, Any]:
    """The headline's figures that are whole: a manifest that somebody edited must not hide the other runs."""
    if not isinstance(headline, dict):
        return {}
    return {name: figure for name, figure in headline.items() if isinstance(figure, dict) and _is_interval(figure)}


def _is_interval(figure: Mapping[str, Any]) -> bool:
    numbers = [figure.get(key) for key in ("value", "low", "high")]
    rest = [value for value in figure.values() if isinstance(value, float)]
    return all(type(number) in (int, float) for number in numbers) and all(
        abs(number) < _MOST for number in (*numbers, *rest) if number is not None
    )


def _seconds_since(created: str, now: float) -> int | None:
    """None where `created` is no time. A clock that was put back makes nothing younger than new."""
    try:
        moment = datetime.fromisoformat(created)
        return max(0, int(now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()))
    except (ValueError, OverflowError):
        return None


def _newest_step(checkpoints: Path) -> int | None:
    try:
        names = os.listdir(checkpoints)  # noqa: PTH208  (names alone, for hundreds of runs)
    except OSError:
        return None
    steps = [int(match[1]) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    return max(steps, default=None)
