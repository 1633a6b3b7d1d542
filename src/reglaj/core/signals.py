"""Being asked to stop: the first signal is a request, which the work meets where nothing is lost; the second is obeyed.

Only the main thread of a process can be asked; elsewhere nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

LIFELINE = "REGLAJ_LIFELINE"
"""Names the descriptor that closes when the launcher is gone, however it went."""
ECHO_S = 1.0
"""Of several processes, a terminal and a launcher may both pass one Ctrl-C on: what follows so soon is the same one."""


class Stopped(BaseException):
    """A signal asked us to stop. No `Exception`, so that no handler on the way takes it for a fault.

    saved: what was saved and how to go on, in words; empty where the work had nothing to save yet.
    """

    def __init__(self, number: signal.Signals, saved: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.saved = saved

    def __str__(self) -> str:
        return f"stopped by {self.number.name}" + (f"; {self.saved}" if self.saved else "")

    @property
    def exit_code(self) -> int:
        """What shells expect: 128 and the signal's number."""
        return 128 + int(self.number)


class StopRequest:
    """Whether a signal has asked for a stop, and which. is_met: somebody has seen to it."""

    def __init__(self) -> None:
        self.number: signal.Signals | None = None
        self.is_met = False


@contextlib.contextmanager
def stopping_gently(said: Callable[[str], None], *, echo_s: float = 0.0) -> Iterator[StopRequest]:
    """SIGINT and SIGTERM are noted inside the block, not obeyed; a second one does what it did before the block.

    said: told once, when the request comes. echo_s: a second signal within that time is taken for the first.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    since = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if request.number is None:
            request.number, since = signal.Signals(number), time.monotonic()
            with contextlib.suppress(Exception):  # the terminal may be in the middle of a line
                said(f"{request.number.name}: finishing this step and saving; a second one stops at once")
            return
        if time.monotonic() - since < echo_s:
            return
        for each, handler in before.items():
            signal.signal(each, handler)
        if callable(before[number]):
            before[number](number, frame)
        else:
            os.kill(os.getpid(), number)

    # A shell starts background jobs with SIGINT ignored: that stays so.
    noted = [number for number, handler in before.items() if handler is not signal.SIG_IGN and handler is not None]
    for number in noted:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number in noted:
            signal.signal(number, before[number])
    if request.number is not None and not request.is_met:
        signal.raise_signal(request.number)  # it came when the work was already done


def watch_lifeline() -> None:
    """In a process that a launcher started: end like on SIGTERM, saved, when the launcher is gone."""
    descriptor = os.environ.pop(LIFELINE, None)
    if descriptor is None:
        return

    def wait() -> None:
        os.read(int(descriptor), 1)  # nobody writes: this returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True, name="lifeline").start()
