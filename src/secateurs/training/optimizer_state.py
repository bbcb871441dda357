"""The states that optimizers keep, and which optimizers treat each element on its own."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import optim

from secateurs.distributed.dtensor import is_dtensor, local_of
from secateurs.errors import InvalidArgumentError

Optimizers = optim.Optimizer | Iterable[optim.Optimizer]

_ELEMENTWISE = frozenset(
    (
        optim.ASGD, optim.Adadelta, optim.Adagrad, optim.Adam, optim.AdamW, optim.Adamax,
        optim.NAdam, optim.RAdam, optim.RMSprop, optim.Rprop, optim.SGD, optim.SparseAdam,
    )
)  # fmt: skip


def is_elementwise(optimizer: optim.Optimizer) -> bool:
    """Whether the gradient of a weight changes that weight alone.

    This is not so where a step divides by norms, searches along a direction or makes a matrix
    orthogonal. An optimizer of an unknown class may do any of these.
    """
    return type(optimizer) in _ELEMENTWISE


def check_optimizers(given: object) -> list[optim.Optimizer]:
    """Return one optimizer or several as a list.

    Raises:
        InvalidArgumentError: it is something else.
    """
    several = list(cast("Iterable[object]", given)) if isinstance(given, list | tuple) else [given]
    plain = [getattr(one, "optimizer", one) for one in several]  # Lightning's is no Optimizer
    if plain and all(isinstance(one, optim.Optimizer) for one in plain):
        return cast("list[optim.Optimizer]", plain)
    wrong = next((one for one in plain if not isinstance(one, optim.Optimizer)), given)
    raise InvalidArgumentError(
        f"optimizer must be a torch.optim.Optimizer or a list of them, got {type(wrong).__name__}"
    )


def with_inner(optimizers: Sequence[optim.Optimizer]) -> list[optim.Optimizer]:
    """The optimizers and those that they wrap, the innermost first; each once.

    An optimizer of accelerate, a ``ZeroRedundancyOptimizer`` and others have the one that does the
    steps in an attribute.
    """
    found: dict[int, optim.Optimizer] = {}

    def visit(optimizer: optim.Optimizer) -> None:
        if id(optimizer) in visiting:
            return
        visiting.add(id(optimizer))
        for inner in list(vars(optimizer).values()):
            if isinstance(inner, optim.Optimizer):
                visit(inner)
        found[id(optimizer)] = optimizer

    visiting: set[int] = set()
    for optimizer in optimizers:
        visit(optimizer)
    return list(found.values())


def parameter_ids(optimizer: optim.Optimizer) -> set[int]:
    """The ids of all parameters of an optimizer, also of groups that were added later."""
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def element_states(optimizer: optim.Optimizer, parameter: torch.Tensor) -> Iterator[torch.Tensor]:
    """This rank's shards of the states that have a value for each element of a parameter.

    Momentum, moments, maxima: every float tensor of the parameter's shape. The integers of
    optimizers of eight bits are codes, of which 0 need not mean zero.
    """
    state = cast("dict[str, Any] | None", optimizer.state.get(parameter))
    for name, value in state.items() if state else ():
        if name != "step" and _has_elements_of(value, parameter):
            yield local_of(value.detach())


def _has_elements_of(value: object, parameter: torch.Tensor) -> bool:
    if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return False
    # It may be divided over ranks where the parameter is not, and the other way round.
    plain = type(value) in (torch.Tensor, torch.nn.Parameter) or is_dtensor(value)
    return plain and (value.is_floating_point() or value.is_complex())


def flat_states(optimizer: optim.Optimizer) -> list[torch.Tensor]:
    """The vectors of LBFGS, each of which has a value for each element of all its parameters."""
    if not isinstance(optimizer, optim.LBFGS):
        return []
    parameters = optimizer.param_groups[0]["params"]
    total = sum(p.numel() for p in parameters)
    found: list[torch.Tensor] = []
    for value in cast("dict[str, Any]", optimizer.state.get(parameters[0]) or {}).values():
        vectors = value if isinstance(value, list) else [value]
        found += [v for v in vectors if isinstance(v, torch.Tensor) and v.shape == (total,)]
    return found
