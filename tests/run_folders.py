"""Run folders as a training leaves them, made without training."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADLINE = {"accuracy": {"value": 0.913, "low": 0.894, "high": 0.93}}
FILES = {
    "recipe.yaml": 1_500,
    "metrics.jsonl": 40_000,
    "report.json": 6_000,
    "report.html": 60_000,
    "README.md": 4_000,
    "model/adapter_model.safetensors": 9_000,
    "model/adapter_config.json": 900,
    "model/head.safetensors": 3_000,
    "model/tokenizer.json": 20_000,
    "model/task.json": 300,
    **{
        f"checkpoints/step-{step:06d}/{name}": 2_000
        for step in (100, 120)
        for name in ("manifest.json", "state.json", "weights.safetensors", "optimizer.safetensors", "metrics.jsonl")
    },
}
SIZE = sum(FILES.values())
"""Bytes of the files of a run but its manifest."""


def created(seconds_ago: float = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds_ago))


def write_run(runs: Path, name: str, *, data_key: str | None = None, **facts: Any) -> Path:
    """A run with the files of a finished one; `facts` are those of its manifest."""
    folder = runs / name
    for path, size in FILES.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    manifest = {
        "identity": name,
        "status": "finished",
        "created": created(3600),
        "task": "classify",
        "method": "lora",
        "headline": HEADLINE,
        "total_steps": 400,
        "data_key": data_key,
        "files": {path: "0" * 64 for path in FILES},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | facts), encoding="utf-8")
    return folder


def write_data(runs: Path, key: str, *sources: str, size: int = 10_000) -> Path:
    """A data folder with a report and a file of that many bytes."""
    folder = runs / ".data" / key
    folder.mkdir(parents=True)
    (folder / "train.parquet").write_bytes(b"x" * size)
    (folder / "report.json").write_text(json.dumps({"sources": [{"name": name} for name in sources]}))
    return folder


@contextlib.contextmanager
def locked_elsewhere(folder: Path) -> Iterator[int]:
    """Another process has the run meanwhile; gives its id."""
    program = (
        "import sys, pathlib; from reglaj.core.runs import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        try:
            yield process.pid
        finally:
            process.kill()


def dead_process() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid
