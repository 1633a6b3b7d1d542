"""Several processes of one training on this machine: starts them, passes signals on, and ends all when one ends badly.

torchrun does the same for many machines. This one keeps our exit codes and our words: what the first process says is
what the user reads.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from reglaj.core.console import SILENT, Console
from reglaj.core.errors import environment_fault, user_error
from reglaj.core.signals import LIFELINE

GRACE_S = 10.0
"""What the others have to end by themselves once one has ended badly: it closes their connections."""
FIRST_GRACE_S = 120.0
"""The same for the first process, which may be writing a checkpoint, and tells what has happened."""
_LOOK_S = 0.05


def launch(arguments: Sequence[str], processes: int, console: Console = SILENT) -> int:
    """Run `python -m reglaj ARGUMENTS` in so many processes, and return the exit code of the training.

    Raises `UserError` for a number that makes no sense, `EnvironmentFault` where the first process, which else tells
    what has happened, was killed itself.
    """
    if processes < 1 or "WORLD_SIZE" in os.environ:
        raise user_error(
            f"--processes {processes}" + (" under torchrun" if processes >= 1 else ""),
            allowed="a number from 1 on, and one launcher",
            why="torchrun has started its processes already" if processes >= 1 else "somebody has to do the work",
            remedy="leave --processes out under torchrun" if processes >= 1 else "leave it out for one process",
            where="--processes",
        )
    reading, writing = os.pipe()
    try:
        children = [_start(arguments, rank, processes, reading) for rank in _ranks(processes)]
    finally:
        os.close(reading)
    before = {number: signal.signal(number, _passing_on(children)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ended = _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        for child in children:
            child.kill()
            child.wait()
    return _verdict(ended, console)


def _ranks(processes: int) -> list[dict[str, str]]:
    """The environment of each process, as torchrun sets it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"LOCAL_WORLD_SIZE": str(processes)}
    if "OMP_NUM_THREADS" not in os.environ:  # processes that all take every core would only take turns
        common["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // processes))
    if sys.platform == "linux":
        common["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _start(arguments: Sequence[str], rank: dict[str, str], processes: int, lifeline: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "reglaj", *arguments],
        env=os.environ | rank | {LIFELINE: str(lifeline)},
        stdin=subprocess.DEVNULL,
        stdout=None if rank["RANK"] == "0" else subprocess.DEVNULL,
        pass_fds=(lifeline,),
        start_new_session=True,  # Ctrl-C reaches the launcher alone, which passes it on once
    )


def _passing_on(children: Sequence[subprocess.Popen[bytes]]) -> Callable[[int, FrameType | None], None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    return pass_on


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> dict[int, int]:
    """Exit code of each rank, in the order in which they ended; after the first bad end the others have a moment."""
    ended: dict[int, int] = {}
    failed_at = None
    while True:
        for rank, child in enumerate(children):
            code = child.poll()
            if code is not None and rank not in ended:
                ended[rank] = code
                failed_at = failed_at or (time.monotonic() if code else None)
        if len(ended) == len(children):
            return ended
        if failed_at is not None and time.monotonic() > failed_at + (GRACE_S if 0 in ended else FIRST_GRACE_S):
            for child in children:
                child.kill()
        time.sleep(_LOOK_S)


def _verdict(ended: dict[int, int], console: Console) -> int:
    """The first process's exit code. Whoever was killed from outside is named: it may be why the first has failed."""
    culprit, code = next(((rank, code) for rank, code in ended.items() if code), (0, 0))
    killed = f"process {culprit} of {len(ended)} was ended by {signal.Signals(-code).name}" if code < 0 else ""
    if ended[0] >= 0:
        if killed:
            console.warn(killed)
        return ended[0] or max(code, 0) or (4 if killed else 0)
    raise environment_fault(
        killed or f"process 0 of {len(ended)} did not end by itself after process {culprit} had failed with {code}",
        allowed="all processes running until the end",
        why="something outside ended it: the memory's guard, a scheduler, a person" if killed else "it was stuck",
        remedy="give the same command: the run goes on from its last checkpoint",
    )
