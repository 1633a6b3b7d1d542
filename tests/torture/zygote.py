"""A process that has loaded everything and computed nothing, and forks an attempt of the command line on demand.

    python -m tests.torture.zygote

A line on standard input, `{"arguments": [...], "folder": ..., "log": ...}`, starts `reglaj ARGUMENTS` in a process of
its own. A line on standard output gives its id, another one its exit code (below zero: the signal that ended it).
An attempt begins in milliseconds instead of five seconds, and dies as any process does.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
ALSO = (
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama", "peft", "sacrebleu"),
    *("sklearn.linear_model", "sklearn.feature_extraction.text", "pyarrow.parquet", "safetensors.torch"),
)


def die_with_parent() -> None:
    """No process of a torture outlives it, however it ends. Does nothing where the system is not Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def load_everything() -> None:
    """Import what a training may import."""
    import reglaj

    for module in pkgutil.walk_packages(reglaj.__path__, "reglaj."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ALSO:
        importlib.import_module(name)


def attempt(order: dict[str, Any]) -> NoReturn:
    """In the forked process: the command, and the end of the process."""
    code = 1
    try:
        die_with_parent()
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        os.chdir(order["folder"])
        from reglaj.cli import main

        code = main(order["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def main() -> None:
    """Answer orders until there are no more."""
    die_with_parent()
    # The answers go where nothing else can print.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    load_everything()
    answers.write("ready\n")
    answers.flush()
    while line := sys.stdin.readline():
        order = json.loads(line)
        Path(order["log"]).parent.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if not child:
            attempt(order)
        answers.write(f"{child}\n")
        answers.flush()
        _, status = os.waitpid(child, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
