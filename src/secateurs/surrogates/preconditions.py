"""Checks of the model and of ``redraw`` that a surrogate is given."""

from torch import nn

from secateurs._validation import as_integer
from secateurs.distributed.model_group import group_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.originals.module_state import is_pruned
from secateurs.surrogates.module_proxy import ModuleProxy


def check_redraw(redraw: object) -> str | int:
    """Check ``redraw``: ``"forward"``, ``"step"``, or a number of draws.

    Raises:
        InvalidArgumentError: it is none of these.
    """
    if isinstance(redraw, str) and redraw in ("forward", "step"):
        return redraw
    count = as_integer(redraw)
    if count is not None and count >= 1:
        return count
    raise InvalidArgumentError(
        Argument("redraw"),
        f' must be "forward", "step", or how many draws to go through in turn, such as 4; '
        f"got {redraw!r}",
    )


def check_model(model: object) -> None:
    """Check that a surrogate can be made of a model.

    Raises:
        InvalidArgumentError: it is no module, a surrogate, pruned, or divided over ranks.
    """
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, ModuleProxy):
        raise InvalidArgumentError("the model is a surrogate already: give its .network")
    check_unpruned(model)
    if group_of(model).is_sharded:
        raise InvalidArgumentError(
            "the model is divided over ranks, which surrogates are not made for: give each rank a "
            "whole model"
        )


def check_unpruned(model: nn.Module) -> None:
    """Check that a model is not pruned: a surrogate would prune it further.

    Raises:
        InvalidArgumentError: the model is pruned.
    """
    if any(map(is_pruned, model.modules())):
        raise InvalidArgumentError(
            "the model is pruned: call secateurs.restore(model) or make_permanent(model) first"
        )
