"""Find the weights in a training checkpoint by its structure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from secateurs._io.text import listed, quoted
from secateurs.errors import Argument, InvalidArgumentError

TOP = "."
"""The name of the tensors at the top level, if there are other sets of weights too."""

# The names of a training's other states, which may hold tensors too.
_STATES = re.compile(
    r"(^|\.)(\w*optim\w*|\w*sched\w*|rng\w*|\w*random\w*|\w*scaler|\w*loss(es)?|\w*criterion"
    r"|\w*metrics?|callbacks?|loops|history|logs?)($|\.)",
    re.IGNORECASE,
)
_DEPTH = 3
_SHOWN = 6


def find_state(
    path: Path,
    loaded: object,
    *,
    key: str | None = None,
    order: Sequence[str] = (),
    remedy: Sequence[object] = (),
) -> dict[str, Tensor]:
    """Return the weights in a loaded checkpoint, by name.

    A set of weights is a mapping from names to tensors, some of which have two dimensions or more:
    the loaded object itself, or a mapping up to three levels inside it, under any name except those
    of optimizers, schedulers, random generators, losses and the like. If there is no such set, one
    with any tensors is taken.

    Args:
        path: only for errors.
        loaded: the object that ``torch.load`` returned.
        key: the name of the weights: ``"ema"``, ``"model.state_dict"``, or `TOP`.
        order: names of sets; if there are several sets and all are listed here, the first is taken.
        remedy: what to do about several sets, in parts of a `Message`; default to write ``key``.

    Raises:
        InvalidArgumentError: there are no weights, or several sets of them.
    """
    if not isinstance(loaded, Mapping):
        # Without values it is a FakeTensor, which a person need not know.
        kind = "tensor" if isinstance(loaded, Tensor) else type(loaded).__name__
        raise InvalidArgumentError(
            f"{path} holds a {kind}, not weights by name; save model.state_dict()"
        )
    mappings = dict(_mappings(loaded))
    if key is not None:
        tensors = _tensors(loaded if key == TOP else _inside(loaded, key))
        if not tensors:
            others = _listed(_candidates(mappings))
            hint = f": weights are under {others}" if others else ""
            raise InvalidArgumentError(
                f"{path} holds no weights under ", Argument("key", key), hint
            )
        return tensors
    if "param_groups" in loaded and "state" in loaded:
        raise InvalidArgumentError(
            f"{path} holds the state of an optimizer, not weights: give the file with the model's"
        )
    names = _candidates(mappings)
    if not names:
        raise InvalidArgumentError(
            f"{path} {f'holds no weights, only {_listed(list(loaded))}' if loaded else 'is empty'}"
            "; save model.state_dict()"
        )
    if len(names) > 1 and not set(names) <= set(order):
        raise InvalidArgumentError(
            f"{path} holds several sets of weights, {_listed(names)}, and loaders differ in which "
            "they take: ",
            *(remedy or ("write ", Argument("key", names[0][:40]), " for one of them")),
        )
    return _tensors(mappings[min(names, key=lambda n: order.index(n) if n in order else -1)])


def _candidates(mappings: Mapping[str, Mapping[Any, Any]]) -> list[str]:
    """The names of the sets of weights that may be meant."""
    for dimensions in (2, 1, 0):
        found = [n for n, m in mappings.items() if not _STATES.search(n) and _holds(m, dimensions)]
        inside = [name for name in found if name != TOP]
        if TOP in found and inside and not _is_named_as_weights(mappings[TOP]):
            return inside  # a batch or a confusion matrix beside the weights
        if found:
            return found
    return []


def _mappings(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """What was loaded and the mappings in it, each once, by their path."""
    level: list[tuple[str, Mapping[Any, Any]]] = [(TOP, loaded)]
    seen = {id(loaded)}
    for depth in range(_DEPTH + 1):
        yield from level
        below: list[tuple[str, Mapping[Any, Any]]] = []
        for path, mapping in level:
            for name, inside in mapping.items():
                if not isinstance(name, str) or not isinstance(inside, Mapping):
                    continue
                if id(inside) not in seen and "param_groups" not in inside:
                    seen.add(id(inside))
                    below.append((f"{path}.{name}" if depth else name, inside))
        level = below


def _holds(mapping: Mapping[Any, Any], dimensions: int) -> bool:
    return any(t.dim() >= dimensions for t in _tensors(mapping).values())


def _is_named_as_weights(mapping: Mapping[Any, Any]) -> bool:
    return any("." in name or name.endswith("weight") for name in _tensors(mapping))


def _tensors(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {k: v for k, v in mapping.items() if isinstance(k, str) and isinstance(v, Tensor)}


def _inside(mapping: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    """The mapping under a name, or a path of names; an empty one if there is none."""
    for end in [len(key), *(i for i, c in enumerate(key) if c == ".")]:
        inside = mapping.get(key[:end])
        if isinstance(inside, Mapping):
            return inside if end == len(key) else _inside(inside, key[end + 1 :])
    return {}


def _listed(names: Sequence[object]) -> str:
    return listed((quoted(name, 40) for name in names), _SHOWN)
