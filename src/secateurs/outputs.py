"""What models return."""

from typing import Any

from torch import Tensor

from secateurs.errors import InvalidArgumentError


def logits_of(output: Any) -> Tensor:
    """The class scores in what a model returned: a tensor, ``.logits``, or the first of a tuple.

    Raises:
        InvalidArgumentError: there is no tensor of shape (batch, classes) in it.
    """
    found = getattr(output, "logits", output)
    if isinstance(found, tuple | list) and found:
        found = found[0]
    if isinstance(found, Tensor) and found.dim() == 2:
        return found
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
    raise InvalidArgumentError(
        f"the model must return scores of shape (batch, classes), got {shape}: "
        "wrap it in a module that does"
    )


def plain_logits(output: Any) -> Any:
    """The ``logits`` of an object that has them, as transformers' models return it; else itself."""
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output
