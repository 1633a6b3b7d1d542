"""Attempts: processes of the real command line that can be watched, killed and waited for."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from tests.torture.zygote import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
# One thread: figures must not hang on how many processors are free.
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),  # the code that stands beside this file
}
KILLED = -int(signal.SIGKILL)


class Attempt(Protocol):
    """One process of the command line."""

    @property
    def pid(self) -> int: ...

    def ended(self, within_s: float = 0.0) -> int | None:
        """The exit code, below zero for a signal; None while it runs. Waits for it at most so long."""

    def kill(self) -> int:
        """SIGKILL. The exit code, which is that of the process where it had ended before."""


class Launcher(Protocol):
    """Starts attempts."""

    def start(self, arguments: list[str], folder: Path, log: Path) -> Attempt:
        """`reglaj ARGUMENTS` in a folder, its output at the end of `log`."""


class _Command:
    """An attempt started as a user does."""

    def __init__(self, arguments: list[str], folder: Path, log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reglaj", *arguments],
                cwd=folder,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = self._process.pid

    def ended(self, within_s: float = 0.0) -> int | None:
        if not within_s:
            return self._process.poll()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def kill(self) -> int:
        self._process.kill()
        return self._process.wait()


class Commands:
    """`python -m reglaj ...`, from nothing."""

    def start(self, arguments: list[str], folder: Path, log: Path) -> Attempt:
        return _Command(arguments, folder, log)


class _Forked:
    """An attempt forked from a zygote, which is its parent and tells how it ended."""

    def __init__(self, zygote: Zygote, pid: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._code: int | None = None
        self._handle: int | None = None
        with contextlib.suppress(ProcessLookupError):  # it may have ended by now
            self._handle = os.pidfd_open(pid)

    def ended(self, within_s: float = 0.0) -> int | None:
        if self._code is None:
            line = self._zygote.answer(within_s)
            if line is not None:
                self._code = int(line)
                if self._handle is not None:
                    os.close(self._handle)
                    self._handle = None
        return self._code

    def kill(self) -> int:
        if self._handle is not None and self.ended() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        code = self.ended(60.0)
        assert code is not None, f"process {self.pid} does not die"
        return code


class Zygote:
    """Attempts forked from a process that has everything loaded (`zygote.py`); one at a time. A context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.torture.zygote"],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._read = b""
        self._newest: _Forked | None = None
        self._orders: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        self._answers: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        if self.answer(120.0) != "ready":
            self.close()
            raise RuntimeError("the zygote did not load; its error is above")

    def start(self, arguments: list[str], folder: Path, log: Path) -> Attempt:
        assert self._newest is None or self._newest.ended() is not None, "one attempt at a time"
        order = {"arguments": arguments, "folder": str(folder), "log": str(log)}
        self._orders.write(json.dumps(order).encode() + b"\n")
        pid = self.answer(60.0)
        assert pid is not None, "the zygote does not answer"
        self._newest = _Forked(self, int(pid))
        return self._newest

    def answer(self, within_s: float) -> str | None:
        """The next line that the zygote says, None where it says nothing for so long or is gone."""
        until = time.monotonic() + within_s
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            piece = os.read(self._answers.fileno(), 4096) if ready else b""
            if not piece:
                return None
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """End it, and an attempt that still runs with it."""
        if self._newest is not None and self._newest.ended() is None:
            self._newest.kill()
        self._process.kill()  # it has nothing to lose, and would take seconds to tidy up
        self._process.wait()
        self._orders.close()
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
