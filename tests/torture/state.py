"""What can be seen of a run from outside: how far it is, what is being saved, and how it differs from another."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from reglaj.core.files import sha256_file
from reglaj.core.runs import LOCK, read_manifest

_SAVE = re.compile(r"\.?(?P<name>step-\d{6,})(?P<rest>\..+)?")
BEFORE, INSIDE, BETWEEN, AFTER = "before the first checkpoint", "inside a save", "between", "after training"
PHASES = (BEFORE, INSIDE, BETWEEN, AFTER)


class RunFolder:
    """The only run of a folder of runs, whether it is there yet or not."""

    def __init__(self, runs: Path, name: str) -> None:
        self.runs = runs
        self.path = runs / f"{name}-001"
        self.checkpoints = self.path / "checkpoints"

    def saves(self) -> tuple[set[str], set[str]]:
        """The checkpoints that are whole, and those that are being written or were left half written."""
        whole, begun = set(), set()
        with contextlib.suppress(OSError):
            for entry in self.checkpoints.iterdir():
                found = _SAVE.fullmatch(entry.name)
                if found and not found["rest"]:
                    whole.add(found["name"])
                elif found and entry.name.endswith(".tmp"):
                    begun.add(found["name"])
        return whole, begun

    def step(self) -> int:
        """The last step in metrics.jsonl; 0 before there is one."""
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            with (self.path / "metrics.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - 2000))
                whole = file.read().rpartition(b"\n")[0]
            return int(json.loads(whole.rpartition(b"\n")[2])["step"])
        return 0

    def can_go_on(self) -> bool:
        """Whether there is a checkpoint to begin from, and something left to do."""
        return bool(self.saves()[0]) and read_manifest(self.path).get("status") != "finished"

    def is_saved_to_the_end(self, total_steps: int) -> bool:
        """Whether the checkpoint after the last step is on disk, or what comes after it."""
        return f"step-{total_steps:06d}" in self.saves()[0] or (self.path / "model").exists()

    def phase(self, total_steps: int) -> str:
        """Where a training was that is no more."""
        whole, begun = self.saves()
        if begun:
            return INSIDE
        if not whole:
            return BEFORE
        return AFTER if self.is_saved_to_the_end(total_steps) else BETWEEN

    def damages(self) -> list[str]:
        """What is wrong with checkpoints that have their final name. There should never be anything."""
        from reglaj.training.checkpoints import damage_of, list_checkpoints

        identity = str(read_manifest(self.path).get("identity"))
        found = [(path.name, damage_of(path, identity)) for path in list_checkpoints(self.checkpoints)]
        aside = [path.name for path in self.checkpoints.glob("damaged-*")]
        return [
            *(f"{name}: {reason}" for name, reason in found if reason),
            *(f"{name} was set aside" for name in aside),
        ]

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl without their times."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]

    def kept_lines_from_before(self, moment: float) -> bool:
        """Whether the first step that metrics.jsonl tells of was taken before that time: the training went on."""
        first = (self.path / "metrics.jsonl").read_text(encoding="utf-8").partition("\n")[0]
        return bool(json.loads(first)["time"] < moment)

    def report(self) -> dict[str, Any]:
        """report.json."""
        value: dict[str, Any] = json.loads((self.path / "report.json").read_text(encoding="utf-8"))
        return value


def differences(calm: RunFolder, run: RunFolder) -> list[str]:
    """How a finished run differs from the calm one, where it must not; what it left lying about."""
    if read_manifest(run.path).get("status") != "finished":
        return [f"{run.path.name} is {read_manifest(run.path).get('status', 'not there')}"]
    found = []
    folders = sorted(path.name for path in run.runs.iterdir() if path.is_dir() and not path.name.startswith("."))
    if folders != [run.path.name]:
        found.append(f"there are the runs {folders}")
    ours, theirs = run.report(), calm.report()
    found += [key for key in ("weights_sha256", "test", "baselines") if ours[key] != theirs[key]]
    trained = ("steps", "best_step", "stopped")
    found += [f"training.{key}" for key in trained if ours["training"][key] != theirs["training"][key]]
    if read_manifest(run.path)["weights_sha256"] != theirs["weights_sha256"]:
        found.append("weights_sha256 of the manifest")
    if _model(run) != _model(calm):
        found.append("the files of the model")
    found += _metrics_differences(calm.metrics(), run.metrics())
    return found + _leftovers(run) + run.damages() + _changed_files(run)


def _model(run: RunFolder) -> dict[str, Any]:
    """The content of every file: hashes, and values where one is written in an order of its own."""
    held: dict[str, Any] = {path.name: sha256_file(path) for path in (run.path / "model").iterdir()}
    adapter = run.path / "model" / "adapter_config.json"
    if adapter.is_file():  # PEFT writes a set of names, as the process happens to hash them
        values = json.loads(adapter.read_text(encoding="utf-8"))
        held[adapter.name] = {key: sorted(v) if isinstance(v, list) else v for key, v in values.items()}
    return held


def _metrics_differences(calm: list[dict[str, Any]], ours: list[dict[str, Any]]) -> list[str]:
    if calm == ours:
        return []
    places = [number for number, (a, b) in enumerate(zip(calm, ours, strict=False), 1) if a != b]
    where = f"first in line {places[0]}" if places else "one is longer"
    return [f"metrics.jsonl ({len(ours)} lines, {len(calm)} in the calm run; {where})"]


def _leftovers(run: RunFolder) -> list[str]:
    left = [path for path in run.runs.rglob("*") if path.name.endswith((".tmp", ".old"))]
    return [f"{path.relative_to(run.runs)} was left" for path in left]


def _changed_files(run: RunFolder) -> list[str]:
    """Files that are not what the manifest says."""
    listed = read_manifest(run.path)["files"]
    there = {str(path.relative_to(run.path)): path for path in run.path.rglob("*") if path.is_file()}
    expected = {name: path for name, path in there.items() if path.name != LOCK and name != "manifest.json"}
    found = [f"{name} is not in the manifest" for name in sorted(expected.keys() - listed.keys())]
    found += [f"{name} is in the manifest only" for name in sorted(listed.keys() - expected.keys())]
    both = sorted(expected.keys() & listed.keys())
    return found + [f"{name} has another hash" for name in both if sha256_file(expected[name]) != listed[name]]
