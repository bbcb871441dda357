"""Globs on qualified names: matching them, and naming many parameters by few of them."""

import re
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from torch import nn

from secateurs.errors import Argument


def name_matches(name: str, pattern: str) -> bool:
    """Whether a glob matches a parameter's name or the name of a module that contains it."""
    parts = name.split(".")
    return any(fnmatchcase(".".join(parts[:i]), pattern) for i in range(len(parts), 0, -1))


def touches(name: str, module: nn.Module, pattern: str | type[nn.Module]) -> bool:
    """Whether a glob or a type picks the parameter ``name`` of ``module``."""
    return isinstance(module, pattern) if isinstance(pattern, type) else name_matches(name, pattern)


def globs(names: Sequence[str], others: Collection[str] = ()) -> dict[str, list[str]]:
    """Name all of ``names`` with few globs that match none of ``others``.

    Numbers become ``*``: the layers of a network differ in their numbers.

    Args:
        names: of parameters or modules.
        others: names of parameters that must not be matched.

    Returns:
        For each glob the names that it matches, in the order of ``names``. A name that no allowed
        glob matches stays as it is.

    Example:
        >>> globs(["layers.0.up", "layers.1.up", "head"])
        {'layers.*.up': ['layers.0.up', 'layers.1.up'], 'head': ['head']}
    """
    found: dict[str, list[str]] = {}
    refused: set[str] = set()
    for name in names:
        for glob in _wider(name):
            if glob not in found and glob not in refused:
                if any(name_matches(other, glob) for other in others):
                    refused.add(glob)
                else:
                    found[glob] = []
            if glob in found:
                found[glob].append(name)
                break
        else:
            found[name] = [name]
    return {members[0] if len(members) == 1 else glob: members for glob, members in found.items()}


def excluding(names: Sequence[str], others: Collection[str]) -> Argument:
    """The argument ``exclude`` that matches ``names`` and none of ``others``, with few globs."""
    found = globs(names, others)
    for glob in list(found):
        rest = [other for other in found if other != glob]
        if all(any(name_matches(name, other) for other in rest) for name in found[glob]):
            del found[glob]
    patterns = list(found)
    return Argument("exclude", patterns[0] if len(patterns) == 1 else patterns)


def _wider(name: str) -> list[str]:
    """Globs that match the name, the widest first."""
    parts = [re.sub(r"^\d+$", "*", part) for part in name.split(".")]
    every = dict.fromkeys((re.sub(r"\d+", "*", name), ".".join(parts)))
    return [glob for glob in every if glob != "*"]
