"""Keyword arguments that are declared once, as a dataclass, and shown wherever they are taken."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from itertools import takewhile
from typing import Any, TypeVar

_Taker = TypeVar("_Taker", bound=Callable[..., object])


def shows(options: type) -> Callable[[_Taker], _Taker]:
    """Let ``help()`` show the fields of a dataclass where a function takes them as ``**keywords``.

    The signature that ``inspect.signature`` gives has one keyword argument for each field, with its
    default, and the entry ``**keywords`` in the docstring becomes what the dataclass's docstring
    says of each. The function is not wrapped, so its calls cost no more.

    Args:
        options: the dataclass.

    Returns:
        A decorator for functions, and for classes whose ``__init__`` takes them.
    """

    def decorate(taker: _Taker) -> _Taker:
        function: Any = vars(taker).get("__init__", taker)  # that of a class
        signature = inspect.signature(function)
        given = list(signature.parameters.values())
        keywords = given.pop()
        given += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default,
                              annotation=f.type)
            for f in fields(options) if f.init
        ]  # fmt: skip
        function.__signature__ = signature.replace(parameters=given)
        documented = inspect.getdoc(taker)
        if documented is not None:  # python -OO leaves docstrings out
            shown = _argument_docs(options)
            said = "\n".join(shown[f.name] for f in fields(options) if f.init)
            own = _argument_docs(taker)[f"**{keywords.name}"]
            taker.__doc__ = documented.replace(own, said)
        return taker

    return decorate


def _argument_docs(documented: object) -> dict[str, str]:
    """The entries under ``Args:`` in a docstring, by name, as they are written."""
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
