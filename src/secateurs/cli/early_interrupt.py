"""Ctrl-C before the command line is imported.

This module is the first that the command line imports, so it imports little itself.
"""

import os
import signal

NOT_BEGUN = 130
"""The exit code for Ctrl-C before the work has begun."""


def end_at_interrupt() -> None:
    """Let Ctrl-C end this process at once, with one line, unless the process ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            signal.signal(signal.SIGINT, end_at_once)
        except ValueError:  # only the main thread may set signal handlers
            return


def end_at_once(*_: object) -> None:
    """A signal handler; nothing was printed or begun, so there is nothing to clean up."""
    try:
        os.write(2, b"secateurs: interrupted\n")
    finally:  # also where stderr is closed
        os._exit(NOT_BEGUN)
