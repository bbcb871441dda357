"""Entry point: one line for an error, exit code 0, 1 or 2."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from secateurs._version import __version__
from secateurs.cli.arguments import spelled_out
from secateurs.cli.report import report
from secateurs.cli.sweep import SEVERAL, sweep
from secateurs.errors import InvalidArgumentError, SecateursError

USAGE, FAILED = 2, 1


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 done, 1 failed, 2 asked for something that cannot be.

    Args:
        arguments: the words after the program's name, default those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    try:
        code = _app()(spelled_out(words, SEVERAL), prog_name="secateurs", standalone_mode=False)
    except SecateursError as error:
        return _say(str(error), USAGE if isinstance(error, InvalidArgumentError) else FAILED)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; the same command goes on where it was", FAILED)
    except BrokenPipeError:
        # Whoever read our output, such as head, has gone; so nothing may be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        return _unforeseen(error)
    return code if isinstance(code, int) else 0


def _app() -> typer.Typer:
    app = typer.Typer(
        name="secateurs",
        help="Exact weight pruning for PyTorch, and the sweep that measures it.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command()(sweep)
    app.command()(report)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"secateurs {__version__}")
        raise typer.Exit


def _unforeseen(error: Exception) -> int:
    """The parser's own errors, and what nobody foresaw."""
    message = getattr(error, "format_message", None)
    if message is not None:
        return _say(f"{message()} (secateurs sweep --help lists the options)", USAGE)
    if os.environ.get("SECATEURS_TRACEBACK"):
        traceback.print_exc()
    text = " ".join(str(error).split()) or "no further message"
    return _say(
        f"unforeseen {type(error).__name__}: {text} (SECATEURS_TRACEBACK=1 shows where)", FAILED
    )


def _say(text: str, code: int) -> int:
    print("secateurs:", " ".join(text.split()), file=sys.stderr)  # noqa: T201
    return code
