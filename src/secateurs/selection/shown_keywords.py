"""Keyword arguments that are declared once, in a dataclass, and documented in many functions."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from itertools import takewhile
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., object])


def shows(options: type) -> Callable[[_Function], _Function]:
    """Let ``help()`` show the fields of a dataclass that a function takes as ``**keywords``.

    ``inspect.signature`` then gives one keyword argument for each field, with its default, and the
    docstring has the dataclass's entries for the fields instead of that for ``**keywords``. The
    function is not wrapped, so calls are not slower.

    Args:
        options: the dataclass.

    Returns:
        A decorator for functions, and for classes whose ``__init__`` takes them.
    """

    def decorate(function_or_class: _Function) -> _Function:
        function: Any = vars(function_or_class).get("__init__", function_or_class)
        signature = inspect.signature(function)
        given = list(signature.parameters.values())
        keywords = given.pop()
        given += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default,
                              annotation=f.type)
            for f in fields(options) if f.init
        ]  # fmt: skip
        function.__signature__ = signature.replace(parameters=given)
        documented = inspect.getdoc(function_or_class)
        if documented is not None:  # python -OO leaves docstrings out
            shown = _argument_docs(options)
            entries = "\n".join(shown[f.name] for f in fields(options) if f.init)
            own = _argument_docs(function_or_class)[f"**{keywords.name}"]
            function_or_class.__doc__ = documented.replace(own, entries)
        return function_or_class

    return decorate


def _argument_docs(documented: object) -> dict[str, str]:
    """The entries under ``Args:`` in a docstring, by name, with their indentation."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    found: dict[str, str] = {}
    name = ""
    for line in takewhile(str.strip, lines[lines.index("Args:") + 1 :] if "Args:" in lines else ()):
        if line[4] != " ":
            name = line.strip().partition(":")[0]
            found[name] = line
        else:
            found[name] += f"\n{line}"
    return found
