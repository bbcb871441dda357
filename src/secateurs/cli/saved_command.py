"""``--config``: the options of an earlier run, from its folder, with others in their place."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import read_regular
from secateurs._version import __version__
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results.durable import replace_files

FILE = "command.json"
# Where a run writes, and whether it goes on there, is not what it does.
_NOT_SAVED = ("--output", "--resume", "--overwrite", "--config")
_OPTION = re.compile(r"-{1,2}[A-Za-z]")


def expand(words: Sequence[str], first_names: Mapping[str, str]) -> list[str]:
    """The words of a command with those of an earlier run in the place of ``--config``.

    Args:
        words: after the program's name.
        first_names: from each name of an option of the command to the first of its names.

    Returns:
        The words without ``--config``: an option that is written here counts instead of the same
        one there.

    Raises:
        InvalidArgumentError: there is no such run, or it is of another command.
        FailureError: what it left cannot be read.
    """
    command, groups = words[0], _groups(words[1:], first_names)
    paths = [group for name, group in groups if name == "--config"]
    if not paths:
        return list(words)
    if len(paths) > 1:
        raise InvalidArgumentError("--config takes one run: write it once")
    here = [(name, group) for name, group in groups if name != "--config"]
    given = {name for name, _ in here}
    there = _groups(_read(command, _value(paths[0])), first_names)
    kept = [group for name, group in there if name not in given]
    return [command, *(word for group in kept for word in group), *_joined(here)]


def saved(
    work: Callable[..., Path | None], words: Sequence[str], first_names: Mapping[str, str]
) -> Callable[..., Path | None]:
    """Let a command write its words into its folder when it is done.

    Args:
        work: runs the command and returns the folder of the run, or None where there is none.
        words: of the command, expanded.
        first_names: as for `expand`.
    """
    groups = _groups(words[1:], first_names)
    kept = _joined([(name, group) for name, group in groups if name not in _NOT_SAVED])
    content = {"secateurs": __version__, "command": words[0], "options": kept}

    def run(**options: Any) -> Path | None:
        folder = work(**options)
        if folder is not None:
            text = json.dumps(content, indent=2) + "\n"  # escaped: paths need not be UTF-8
            replace_files({folder / FILE: text.encode()})
        return folder

    return run


def _groups(words: Sequence[str], first_names: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Each option with its values, under the first of its names."""
    groups: list[tuple[str, list[str]]] = []
    for word in words:
        if not _OPTION.match(word):
            groups = groups or [("", [])]
            groups[-1][1].append(word)
            continue
        name = word.partition("=")[0].replace("_", "-")
        short = name if name.startswith("--") else name[:2]
        groups.append((first_names.get(short, short), [word]))
    return groups


def _joined(groups: Sequence[tuple[str, list[str]]]) -> list[str]:
    return [word for _, group in groups for word in group]


def _value(group: Sequence[str]) -> Path:
    _, equals, value = group[0].partition("=")
    values = [value, *group[1:]] if equals else list(group[1:])
    if len(values) != 1:
        raise InvalidArgumentError("--config needs a value: the folder of a run")
    return Path(values[0])


def _read(command: str, path: Path) -> list[str]:
    file = (path if path.is_dir() else path.parent) / FILE
    if not path.exists():
        raise InvalidArgumentError(f"there is no run {path} to take options from")
    try:
        content = parse_object(read_regular(file))
    except FileNotFoundError:
        raise InvalidArgumentError(
            f"{file.parent} has no {FILE}, which sweep, retrain, repair and transfer write when "
            "they are done: give the folder of such a run as --config"
        ) from None
    except OSError as error:
        raise FailureError(f"cannot read {file}: {error.strerror or error}") from error
    except BrokenJSONError as error:
        raise InvalidArgumentError(f"{file} holds no options of a run ({error})") from error
    options: Any = content.get("options")
    if not isinstance(options, list) or not all(isinstance(word, str) for word in options):
        raise InvalidArgumentError(f"{file} holds no options of a run")
    if content.get("command") != command:
        raise InvalidArgumentError(
            f"{file} is of secateurs {content.get('command')}, not of secateurs {command}"
        )
    return options
