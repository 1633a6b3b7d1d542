"""Checkpoints: everything that decides the future of a training, whole and verified, or not there at all.

    checkpoints/step-000120/   manifest.json      sizes and SHA-256 of the files, the step, whose run it is, and
                                                  a digest of all this
                               state.json         counters, early stopping, random states, engine choices
                               weights.safetensors, optimizer.safetensors
                               best.safetensors   where the best weights are not those of this step
                               metrics.jsonl      the run's metrics up to this step
    checkpoints/damaged-step-000120/              set aside: with reason.txt

A checkpoint is written into a temporary folder, fsynced and renamed. What cannot be trusted is not loaded.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault, user_error
from reglaj.core.files import canonical_hash, disk_faults, new_folder, sha256_file, write_json, write_text

FORMAT = 1
_VERSION = version("reglaj")
FOLDER = "checkpoints"
MANIFEST = "manifest.json"
_STEP = "step-"
_DAMAGED = "damaged-"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The training after a step. state: JSON values. best: None where `weights` are the best so far.

    metrics: the lines of metrics.jsonl. Tensors lie in memory and are not changed by others any more.
    """

    step: int
    state: dict[str, Any]
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    best: dict[str, Tensor] | None
    metrics: list[dict[str, Any]]


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in the folder of all."""
    return folder / f"{_STEP}{step:06d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first; nothing is looked at but their names."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if _step_of(path) is not None and path.is_dir()]
    return sorted(found, key=lambda path: _step_of(path) or 0)


def write_checkpoint(
    folder: Path, checkpoint: Checkpoint, identity: str, is_wanted: Callable[[], bool] = lambda: True
) -> None:
    """Put a checkpoint of the run with that identity into the folder of all, if it is still wanted at the end.

    Raises `EnvironmentFault`.
    """
    from safetensors.torch import save_file

    parts = {"weights": checkpoint.weights, "optimizer": checkpoint.optimizer}
    parts |= {"best": checkpoint.best} if checkpoint.best is not None else {}
    with disk_faults(folder):
        folder.mkdir(exist_ok=True)
    with new_folder(checkpoint_path(folder, checkpoint.step)) as target:
        for name, tensors in parts.items():
            try:
                save_file(tensors, target / f"{name}.safetensors")
            except Exception as error:  # the library has its own words for a full disk
                raise OSError(None, str(error), str(target)) from error
        write_json(target / "state.json", checkpoint.state)
        write_text(target / "metrics.jsonl", metrics_text(checkpoint.metrics))
        files = {
            file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in sorted(target.iterdir())
        }
        manifest = {
            "format": FORMAT,
            "step": checkpoint.step,
            "identity": identity,
            "reglaj": _VERSION,
            "files": files,
        }
        write_json(target / MANIFEST, manifest | {"digest": canonical_hash(manifest)})
        if not is_wanted():
            raise InterruptedError("abandoned")


def prune(folder: Path, keep: int) -> None:
    """Leave the newest `keep` checkpoints."""
    for path in list_checkpoints(folder)[:-keep]:
        doomed = path.with_name(f".{path.name}.pruned.tmp")  # a half removed one must not look like a checkpoint
        with disk_faults(folder), contextlib.suppress(FileNotFoundError):
            path.rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def damage_of(path: Path, identity: str) -> str | None:
    """Why a checkpoint cannot be used by the run with that identity, in a sentence; None where it can."""
    reason, manifest = _broken_manifest(path)
    if reason or manifest is None:
        return reason
    if manifest["format"] != FORMAT:
        return f"it has format {manifest['format']}, written by reglaj {manifest['reglaj']}"
    if manifest["identity"] != identity:
        return "it belongs to another run: other recipe, data or base"
    return _broken_files(path, manifest)


def newest_checkpoint(folder: Path, identity: str, console: Console = SILENT) -> Checkpoint | None:
    """The newest whole checkpoint of a run. Damaged ones are set aside, with the reason, and said.

    Raises `UserError` for one of another run and `EnvironmentFault` for one of another format: they are whole, and
    whoever put them there should decide.
    """
    for path in reversed(list_checkpoints(folder)):
        reason, manifest = _broken_manifest(path)
        if manifest:
            _refuse_foreign(path, manifest, identity)
            reason = _broken_files(path, manifest)
        if reason is None:
            return _read(path)
        aside = _set_aside(path, reason)
        console.warn(f"{path.name} is damaged ({reason}): set aside as {aside.name}, and the one before is used")
    return None


def metrics_text(lines: list[dict[str, Any]]) -> str:
    """The text of metrics.jsonl."""
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def _step_of(path: Path) -> int | None:
    digits = path.name.removeprefix(_STEP)
    return int(digits) if path.name.startswith(_STEP) and digits.isdecimal() else None


def _broken_manifest(path: Path) -> tuple[str | None, dict[str, Any] | None]:
    """What is wrong with the manifest itself; the manifest, where nothing is."""
    try:
        content = (path / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(content)
        digest = manifest.pop("digest")
        step = manifest["step"]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        return f"{MANIFEST} cannot be read: {type(error).__name__}", None
    except OSError as error:  # nothing is wrong with what cannot be looked at
        raise environment_fault(
            f"cannot read {path / MANIFEST}",
            allowed="a checkpoint that can be read",
            why=error.strerror or str(error),
            remedy="mend that, then give the same command; nothing was changed",
        ) from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        return f"{MANIFEST} cannot be read: {type(error).__name__}", None
    as_written = json.dumps(manifest | {"digest": digest}, ensure_ascii=False, indent=1) + "\n"
    if content != as_written or canonical_hash(manifest) != digest:
        return f"{MANIFEST} was changed", None
    if step != _step_of(path):
        return f"{MANIFEST} is that of step {step}", None
    return None, manifest


def _broken_files(path: Path, manifest: dict[str, Any]) -> str | None:
    listed = manifest["files"]
    there = {file.name for file in path.iterdir()} - {MANIFEST}
    for name in sorted(listed.keys() | there):
        if name not in listed:
            return f"{name} is not in its manifest"
        if name not in there or not (path / name).is_file():
            return f"{name} is missing"
        size = (path / name).stat().st_size
        if size != listed[name]["bytes"]:
            return f"{name} has {size:,} bytes instead of {listed[name]['bytes']:,}"
    # Sizes first: they cost nothing. Then every byte.
    return next((f"{name} was changed" for name in listed if sha256_file(path / name) != listed[name]["sha256"]), None)


def _refuse_foreign(path: Path, manifest: dict[str, Any], identity: str) -> None:
    if manifest["format"] != FORMAT:
        raise environment_fault(
            f"{path} has format {manifest['format']}, written by reglaj {manifest['reglaj']}",
            allowed=f"format {FORMAT}, which this reglaj ({_VERSION}) reads and writes",
            why="what is not understood would be lost, in silence",
            remedy="go on with the reglaj that wrote it, or take a new run with --fresh; nothing was changed",
        )
    if manifest["identity"] != identity:
        raise user_error(
            f"{path} is the checkpoint of another run",
            allowed="checkpoints of this recipe on this data and base",
            why="going on from it would give neither the one training nor the other",
            remedy="move it away, or take a new run with --fresh; nothing was changed",
        )


def _set_aside(path: Path, reason: str) -> Path:
    target, number = path.with_name(f"{_DAMAGED}{path.name}"), 1
    while target.exists():
        number += 1
        target = path.with_name(f"{_DAMAGED}{path.name}-{number}")
    with disk_faults(path):
        path.rename(target)
        write_text(target / "reason.txt", f"{reason}\n")
    return target


def _read(path: Path) -> Checkpoint:
    from safetensors.torch import load_file

    state = json.loads((path / "state.json").read_text(encoding="utf-8"))
    lines = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    best = path / "best.safetensors"
    return Checkpoint(
        step=_step_of(path) or 0,
        state=state,
        weights=load_file(path / "weights.safetensors"),
        optimizer=load_file(path / "optimizer.safetensors"),
        best=load_file(best) if best.is_file() else None,
        metrics=[json.loads(line) for line in lines],
    )
