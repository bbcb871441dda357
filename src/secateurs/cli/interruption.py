"""Ctrl-C, SIGTERM and SIGHUP: clean up what was begun, and say so in one line."""

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

from secateurs.cli.early_interrupt import end_at_once

INTERRUPTED = "interrupted"
"""How the message about an interrupt begins."""

_AGAIN_SECONDS = 0.1
_QUICK_SECONDS = 1.0
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_AT_FORK = ("logging", "random", "secateurs._io.lock")
_OF_WEAK_REFERENCES = ("weakref", "_weakrefset", "torch.utils.weak")
_CALLED_BACK = (*_AT_FORK, *_OF_WEAK_REFERENCES)
"""Modules whose functions Python calls at a fork, or when an object is freed."""


class Interruption:
    """In its ``with`` block, signals that end a program raise one `KeyboardInterrupt`.

    Another signal within a second is ignored, so that cleaning up can finish; a later one
    interrupts that too. Signals that the process ignores, as under ``nohup``, stay ignored.

    Args:
        last: whether the process ends after the block: then later signals are ignored.
        launched: whether torchrun has started this process. It repeats signals while the process
            cleans up, and sends them to DataLoader workers as well: so later signals are ignored,
            and so is the end of a worker.

    Attributes:
        number: the signal that came first, None if none did.
    """

    def __init__(self, *, last: bool, launched: bool = False):
        self.number: int | None = None
        self._last, self._launched = last, launched
        self._since = 0.0
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def renamed(self, complaint: str) -> str:
        """A message that names the signal, if it was not Ctrl-C, instead of "interrupted"."""
        if self.number in (None, signal.SIGINT) or not complaint.startswith(INTERRUPTED):
            return complaint
        name = f"ended by {signal.Signals(self.number).name}"
        if self._launched:
            name += ", which torchrun also sends when another rank has ended"
        return name + complaint.removeprefix(INTERRUPTED)

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may set signal handlers
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            before = signal.getsignal(number)
            if before is end_at_once:
                before = signal.default_int_handler
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = before
                signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._last else before)

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
            signal.signal(signal.SIGCHLD, _ignore)
        raise KeyboardInterrupt


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing."""


def _would_be_lost(frame: FrameType | None) -> bool:
    """Whether Python would print an exception and drop it, as in callbacks and in ``__del__``."""
    if frame is None:
        return False
    own = frame.f_globals.get("__name__") in _CALLED_BACK
    return own or frame.f_code.co_name == "__del__"


def _end_worker(number: int) -> None:
    """End a forked worker, which has inherited the handler, as without the handler."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
