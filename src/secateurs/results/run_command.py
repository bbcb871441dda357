"""The command that made the results of a folder, kept beside them."""

import json
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from secateurs._io.json_objects import BrokenJSONError, as_list, as_text, member, parse_object
from secateurs._io.regular_files import read_if_there
from secateurs.errors import InvalidArgumentError

COMMAND = "command.json"


@dataclass(frozen=True)
class RunCommand:
    """A command of the command line.

    Attributes:
        name: Its name, such as "sweep".
        options: The words after it.
        version: Of secateurs.
    """

    name: str
    options: Sequence[str]
    version: str = field(default="", compare=False)

    def __str__(self) -> str:
        """As a shell reads it."""
        return " ".join(map(shlex.quote, ("secateurs", self.name, *self.options)))


_RUNNING: ContextVar[RunCommand | None] = ContextVar("running", default=None)


@contextmanager
def running(command: RunCommand) -> Generator[None]:
    """Within the block, a command runs: a folder of results that is opened there gets it."""
    token = _RUNNING.set(command)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def command_text() -> str | None:
    """The content of `COMMAND` for the command that runs now; None where none does."""
    command = _RUNNING.get()
    if command is None:
        return None
    content = {
        "secateurs": command.version,
        "command": command.name,
        "options": list(command.options),
    }
    return json.dumps(content, indent=2) + "\n"  # escaped: paths need not be UTF-8


def read_command(folder: Path) -> RunCommand | None:
    """The command that made the results of a folder; None where none is recorded.

    Raises:
        InvalidArgumentError: The file holds no command.
        FailureError: The file cannot be read.
    """
    path = folder / COMMAND
    content = read_if_there(path)
    if content is None:
        return None
    try:
        found = parse_object(content)
        options = as_list(member(found, "options"))
        return RunCommand(as_text(member(found, "command")), list(map(as_text, options)))
    except BrokenJSONError as error:
        raise InvalidArgumentError(f"{path} holds no options of a run ({error})") from error
