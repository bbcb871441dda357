"""``--config``: the options of an earlier run, from its folder, unless they are written anew."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from secateurs.errors import InvalidArgumentError
from secateurs.results.run_command import COMMAND, read_command

_DISPLAY = {"--quiet", "--json"}  # of one call: not kept
_ONCE = {"--resume", "--overwrite", "--config", *_DISPLAY}  # never taken from an earlier run
_SAME_RESULTS = _ONCE | {"--log-to", "--title", "--workers"}
_OPTION = re.compile(r"-{1,2}[A-Za-z]")


def expand(words: Sequence[str], first_names: Mapping[str, str]) -> list[str]:
    """The words of a command with those of an earlier run instead of ``--config``.

    An option that is written here counts instead of the same one there. Without any that could
    change the results, this is the same run, which goes on in its folder; else it is another, so
    the folder is not repeated.

    Args:
        words: after the program's name.
        first_names: from each name of an option of the command to the first of its names.

    Returns:
        The words without ``--config``.

    Raises:
        InvalidArgumentError: there is no such run, or it is of another command.
        FailureError: its command cannot be read.
    """
    command, groups = words[0], _groups(words[1:], first_names)
    paths = [group for name, group in groups if name == "--config"]
    if not paths:
        return list(words)
    if len(paths) > 1:
        raise InvalidArgumentError("--config takes one run: write it once")
    here = [(name, group) for name, group in groups if name != "--config"]
    without = _ONCE | {name for name, _ in here}
    if not without <= _SAME_RESULTS:
        without.add("--output")
    there = _groups(_options_of(command, _value(paths[0])), first_names)
    kept = [(name, group) for name, group in there if name not in without]
    return [command, *(word for _, group in (*kept, *here) for word in group)]


def kept_options(words: Sequence[str], first_names: Mapping[str, str]) -> list[str]:
    """The options of a command that its folder keeps for later runs.

    Args:
        words: the options with their values.
        first_names: as for `expand`.
    """
    groups = _groups(words, first_names)
    return [word for name, group in groups if name not in _DISPLAY for word in group]


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


def _value(group: Sequence[str]) -> Path:
    _, equals, value = group[0].partition("=")
    values = [value, *group[1:]] if equals else list(group[1:])
    if len(values) != 1:
        raise InvalidArgumentError("--config needs a value: the folder of a run")
    return Path(values[0])


def _options_of(command: str, path: Path) -> Sequence[str]:
    if not path.exists():
        raise InvalidArgumentError(f"there is no run {path} to take options from")
    folder = path if path.is_dir() else path.parent
    found = read_command(folder)
    if found is None:
        raise InvalidArgumentError(
            f"{folder} has no {COMMAND}, which a command writes into its folder: give such a "
            "folder as --config"
        )
    if found.name != command:
        raise InvalidArgumentError(
            f"{folder / COMMAND} is of secateurs {found.name}, not of secateurs {command}"
        )
    return found.options
