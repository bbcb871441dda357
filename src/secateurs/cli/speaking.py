"""What a command says, also where nobody can hear it: what it has made counts for more."""

import os
import sys
from contextlib import suppress
from typing import TextIO

import typer


def tell(text: str) -> OSError | None:
    """Print a result on stdout.

    Returns:
        Why it could not be printed; None if it was, or if the reader of a pipe has gone.
    """
    try:
        typer.echo(text)
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        return error
    return None


def note(text: str) -> None:
    """Print a remark on stderr, if that can be written."""
    try:
        typer.echo(text, err=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Let what is left in a stream go nowhere, or Python complains of it in the end."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
