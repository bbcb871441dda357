"""Parse the words of the command line, and report those that are not understood."""

import difflib
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from typing import Any, Literal, get_args, get_origin

from cyclopts import (
    App,
    CoercionError,
    ConsumeMultipleError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
)

from secateurs._console import make_console, silence
from secateurs._validation import nearest
from secateurs._version import __version__
from secateurs.cli.commands import (
    budget,
    repair,
    retrain,
    sensitivity,
    speed,
    sweep,
    transfer,
)
from secateurs.cli.file_commands import compare, prune, report
from secateurs.cli.help_examples import examples_of
from secateurs.cli.printing import Printing, as_asked
from secateurs.cli.saved_command import expand, kept_options
from secateurs.cli.standard_output import Stdout
from secateurs.errors import InvalidArgumentError, Message
from secateurs.results.run_command import RunCommand

_RUNS = (sweep, sensitivity, budget, retrain, repair, speed, transfer)
"""Commands with a folder of results, in which they are kept themselves."""
_KINDS = {float: "numbers such as 0.5", int: "whole numbers such as 3"}


def parse(words: Sequence[str]) -> Callable[[], Any]:
    """The command in some words, with its options.

    Args:
        words: those after the program's name, at least one.

    Returns:
        A function that checks what can be checked at once, and returns the function that does the
        work; it returns None if nothing is left to do, as after ``--help``.

    Raises:
        InvalidArgumentError: a word is not a command, an option or a value.
    """
    _refuse_empty(words)
    app = make_app()
    if list(words) == ["--version"]:
        return _print_version
    runs = words[0] in [command.__name__ for command in _RUNS]
    names = _first_names(app, words[0]) if runs else {}
    words = expand(words, names) if runs else words
    try:
        command, bound, _ = app.parse_args(
            list(words), console=make_console(), print_error=False, exit_on_error=False
        )
    except CycloptsError as error:
        chain = " ".join(("secateurs", *(error.command_chain or ())))
        said = error.__cause__ if isinstance(error.__cause__, Message) else _complaint(error)
        raise InvalidArgumentError(said, f"; see {chain} --help") from error

    def check() -> Any:
        if not runs:
            return command(*bound.args, **bound.kwargs)
        printing: Printing = bound.arguments.get("printing", Printing())
        with silence() if printing.quiet else nullcontext():
            work = command(*bound.args, **bound.kwargs)
        options = kept_options(words[1:], names)
        return work and as_asked(RunCommand(words[0], options, __version__), printing, work)

    return check


def make_app() -> App:
    """The program with its commands, for the parser."""
    app = App(
        name="secateurs",
        help="Exact weight pruning for PyTorch: sweeps, retraining, repair, speed, transfer.",
        help_format="plaintext",
        version=__version__,
        version_flags=["--version"],
        help_flags=["--help", "-h"],
        default_parameter=Parameter(
            negative=(),  # no --no-FLAG
            consume_multiple=1,  # --p-prune 0 0.1 0.2
            allow_repeating=True,  # the last one counts, so that scripts can append options
            show_default=_shown,
        ),
    )
    for command in (*_RUNS, prune, report, compare):
        app.command(command, help_epilogue=examples_of(command.__name__))
    app.register_install_completion_command(
        help="Complete commands and options with the Tab key, in bash, zsh, fish or PowerShell."
    )
    return app


def options_of(command: str) -> Collection[str]:
    """The names of a command's options, both ``--output`` and ``-o``."""
    app = make_app()
    if command.startswith("-") or command not in app:  # to the parser --help is a command, too
        return ()
    return _first_names(app, command).keys()


def _first_names(app: App, command: str) -> dict[str, str]:
    """From each name of a command's options to the first name of the same one."""
    arguments = app[command].assemble_argument_collection(default_parameter=app.default_parameter)
    return {name: argument.names[0] for argument in arguments for name in argument.names}


def _print_version() -> None:
    with Stdout("the version") as stdout:
        stdout.write(f"secateurs {__version__}\n")


def _shown(default: object) -> str | None:
    """A default as a person would write it; None if the help should not show it."""
    if default is None or isinstance(default, bool):
        return None
    values = default if isinstance(default, tuple) else (default,)
    return " ".join(map(str, values)) or None


def _refuse_empty(words: Sequence[str]) -> None:
    """Refuse empty words, since an empty path is the current folder; a title may be empty.

    Raises:
        InvalidArgumentError: a word is empty.
    """
    before = ""
    for word in words:
        name, equals, value = word.partition("=")
        joined = bool(equals) and name.startswith("-")
        option = name if joined else before
        if not (value if joined else word) and option != "--title":
            where = f"after {option}" if option else "first"
            raise InvalidArgumentError(
                f"the argument {where} is empty, as where a variable of the shell is not set: "
                "write its value, or leave it out"
            )
        before = word


def _complaint(error: CycloptsError) -> str:
    """The error of the parser, in one line."""
    if isinstance(error, CoercionError) and error.token is not None:
        name = error.argument.name if error.argument is not None else ""
        return _of_value(error, error.token.keyword or name, error.token.value)
    unused = error.unused_tokens or [""]
    if isinstance(error, UnknownOptionError):
        option = error.token.keyword or error.token.value
        known = [name for argument in error.argument_collection for name in argument.names]
        return f"no such option: {option}{_nearest(option, known)}"
    if isinstance(error, UnknownCommandError):
        what = "no such option: " if unused[0].startswith("-") else "no such command: "
        return what + unused[0] + _nearest(unused[0], list(make_app()))
    if isinstance(error, UnusedCliTokensError):
        return f"unexpected extra argument {unused[0]!r}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        return _of_nothing(error, error.argument.name)
    return str(error).rstrip(".")


def _of_nothing(error: MissingArgumentError, name: str) -> str:
    if not name.startswith("-"):
        return f"{name} is missing"
    return (
        f"{name} needs {'at least one' if isinstance(error, ConsumeMultipleError) else 'a'} value"
    )


def _of_value(error: CoercionError, option: str, value: str) -> str:
    kind: Any = error.target_type
    if kind is bool:
        return f"{option} takes no value, got {value!r}"
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        said = f"{option} must be one of {', '.join(choices)}; got {value!r}"
        return said + nearest(value, choices)
    return f"{option} takes {_KINDS.get(kind, 'other values')}, got {value!r}"


def _nearest(word: str, choices: Sequence[str]) -> str:
    """A hint at a choice that begins with a word, that the word ends with, or that is similar."""
    close = [choice for choice in choices if len(word) > 3 and choice.startswith(word)]
    close += [name for name in choices if name.startswith("--") and word.endswith(name[1:])]
    if not close:  # dashes alone make nothing similar
        bare = {choice.lstrip("-"): choice for choice in choices}
        similar = difflib.get_close_matches(word.lstrip("-"), list(bare), n=1, cutoff=0.6)
        close = [bare[name] for name in similar]
    return f"; did you mean {close[0]}?" if close else ""
