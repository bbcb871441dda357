"""Errors of the library speak Python; the command line says the same with its options."""

import ast
import re
import shlex

_OPTIONS = ("layers", "include", "exclude", "score")  # those of every command that prunes
_TEXT = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
# An argument with a value that can be written in a shell, or named alone; or quoted text, which is
# somebody's own and stays. The apostrophe of "model's" begins none.
_ARGUMENT = re.compile(
    rf"(?<![\w.\-/])(?P<name>{'|'.join(_OPTIONS)})="
    rf"(?:(?P<value>(?:{_TEXT})(?!\w)|\[(?:{_TEXT})(?:, (?:{_TEXT}))*\])|(?=[\s,;:)]|$))"
    rf"|(?<!\w)(?:{_TEXT})(?!\w)"
)


def in_options(text: str) -> str:
    """Write the arguments that an error names as options: ``exclude='head'`` as ``--exclude head``.

    What has no form on the command line, such as a class, stays as it is, and so does quoted text.

    Example:
        >>> in_options("write exclude=['*.up', 'head'], or name others with layers=")
        "write --exclude '*.up' head, or name others with --layers"
    """
    return _ARGUMENT.sub(_as_option, text)


def _as_option(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if name is None:
        return found.group()
    if value is None:
        return f"--{name}"
    given = ast.literal_eval(value)
    words = [given] if isinstance(given, str) else given
    if any(word.startswith("-") for word in words):  # taken for options, but for one behind "="
        return " ".join(f"--{name}={shlex.quote(word)}" for word in words)
    return " ".join((f"--{name}", *map(shlex.quote, words)))
