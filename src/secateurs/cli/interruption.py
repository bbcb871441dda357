"""Ctrl-C, SIGTERM and SIGHUP: what was begun is cleared up, and one line says so."""

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Self

INTERRUPTED = "interrupted"
"""How a complaint about an interrupt begins."""

_AGAIN_SECONDS = 0.1
_QUICK_SECONDS = 1.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_AT_FORK = ("logging", "random", "secateurs.results.lock")  # who registers callbacks


class Interruption:
    """Makes one `KeyboardInterrupt` of the signals that end a program, as long as it is entered.

    Another signal within a second changes nothing, so that what clears up comes to its end; a later
    one interrupts that too. Signals that the process ignores, as under ``nohup``, stay ignored.

    Args:
        last: whether the process ends afterwards: then nothing is raised any more on its way out.
        launched: whether torchrun has started this process. It repeats signals, however long
            clearing up takes, and sends them to the processes that read images as well: so later
            signals change nothing, and a reader that ends is overlooked.

    Attributes:
        number: the signal that came first, None if none did.
    """

    def __init__(self, *, last: bool, launched: bool = False):
        self.number: int | None = None
        self._last, self._launched = last, launched
        self._since = 0.0
        self._process = os.getpid()
        self._before: dict[int, object] = {}

    def renamed(self, complaint: str) -> str:
        """A complaint, which begins with the signal that came instead of "interrupted"."""
        if self.number in (None, signal.SIGINT) or not complaint.startswith(INTERRUPTED):
            return complaint
        name = f"ended by {signal.Signals(self.number).name}"
        if self._launched:
            name += ", which torchrun also sends when another rank has ended"
        return name + complaint.removeprefix(INTERRUPTED)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread can be told of signals
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._before.items():
            if self._last:
                signal.signal(number, signal.SIG_IGN)
            elif before is signal.default_int_handler:
                signal.signal(number, signal.default_int_handler)
            else:
                signal.signal(number, signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            if not self._launched:
                _end_worker(number)
            return
        if _would_be_lost(frame):
            threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), number)).start()
            return
        now = time.monotonic()
        if self.number is not None and (self._launched or now - self._since < _QUICK_SECONDS):
            return
        self.number = number if self.number is None else self.number
        self._since = now
        if self._launched and hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, _overlook)
        raise KeyboardInterrupt


def _overlook(number: int, frame: FrameType | None) -> None:
    """For a signal that does not matter any more."""


def _would_be_lost(frame: FrameType | None) -> bool:
    """Whether Python prints and drops what is raised here: it does while a process is forked."""
    return frame is not None and frame.f_globals.get("__name__") in _AT_FORK


def _end_worker(number: int) -> None:
    """What a forked worker would do by itself, which has the handler from its parent."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
