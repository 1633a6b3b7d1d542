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

from reglaj.core.errors import environment_fault, user_error
from reglaj.core.signals import LIFELINE

GRACE_S = 10.0
"""What the others have to end by themselves once one has ended badly: it closes their connections."""
_LOOK_S = 0.05


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run `python -m reglaj ARGUMENTS` in so many processes, and return the exit code of the training.

    Raises `UserError` for a number that makes no sense, `EnvironmentFault` where a process was killed from outside.
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
        codes = _wait(children)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writing)
        for child in children:
            child.kill()
            child.wait()
    return _verdict(codes)


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


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes by rank, once all have ended; after the first bad end the others have a moment."""
    deadline = None
    while True:
        codes = [child.poll() for child in children]
        if all(code is not None for code in codes):
            return [code for code in codes if code is not None]
        if deadline is None and any(codes):
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(_LOOK_S)


def _verdict(codes: Sequence[int]) -> int:
    killed = [(rank, -code) for rank, code in enumerate(codes) if code < 0]
    said = next((code for code in codes if code > 0), 0)
    # Whoever was killed from outside went first; the others noticed (4), or were killed by us (SIGKILL) after that.
    if killed and said in (0, 4):
        rank, number = killed[0]
        raise environment_fault(
            f"process {rank} of {len(codes)} was ended by {signal.Signals(number).name}",
            allowed="all processes running until the end",
            why="something outside ended it: the memory's guard, a scheduler, a person",
            remedy="give the same command: the run goes on from its last checkpoint",
        )
    return said
