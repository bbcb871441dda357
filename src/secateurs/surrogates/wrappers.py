"""Find the surrogates in a module, however they are wrapped, and call their methods."""

import functools
import types
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from secateurs.surrogates.diversified import Diversified


def surrogates_in(*modules: nn.Module) -> list[Diversified]:
    """The surrogates in some modules, each once.

    It searches submodules, and lists, tuples, sets, dictionaries, functions, partials and methods
    in attributes, but no objects of other kinds.
    """
    return list(dict.fromkeys(_walk(modules, set())))


def call_each(members: Iterable[nn.Module], name: str, *values: object) -> None:
    """Call a method of each member that has it; of the others, that of the surrogates in them.

    Members are networks, some of which are or contain surrogates.
    """
    for receiver in _receivers(members, name):
        getattr(receiver, name)(*values)


@contextmanager
def entering(members: Iterable[nn.Module], name: str) -> Generator[None]:
    """`call_each` for a method that returns a context manager, such as ``"frozen"``."""
    with ExitStack() as stack:
        for receiver in _receivers(members, name):
            stack.enter_context(getattr(receiver, name)())
        yield


def _receivers(members: Iterable[nn.Module], name: str) -> list[nn.Module]:
    found: dict[nn.Module, None] = {}
    for member in members:
        own = getattr(member, name, None)
        # A layer of that name is not a method: transformers has linear layers called ``dense``.
        receives = callable(own) and not isinstance(own, nn.Module)
        found |= dict.fromkeys([member] if receives else surrogates_in(member))
    return list(found)


def _walk(values: Iterable[Any], seen: set[int]) -> Iterator[Diversified]:
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Diversified):
            yield value
        else:
            yield from _walk(_within(value), seen)


def _within(value: Any) -> Iterable[Any]:
    if isinstance(value, nn.Module):
        own = (v for k, v in vars(value).items() if k not in _MODULE_ATTRIBUTES)
        return [*value.children(), *own]
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, types.FunctionType):
        return [cell for each in value.__closure__ or () for cell in _content(each)]
    return ()


def _content(cell: types.CellType) -> list[Any]:
    try:
        return [cell.cell_contents]
    except ValueError:  # the variable is not assigned yet
        return []


# Not searched: `_within` lists the children itself, and no surrogate is in tensors or in hooks.
_MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
