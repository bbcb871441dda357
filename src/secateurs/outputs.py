"""What models return."""

from collections.abc import Mapping
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
    """The ``logits`` of an object that holds nothing else, as transformers' models return it.

    Logits of several heads count as nothing else: those called ``logits`` are the model's. An
    object with a loss, hidden states or anything more is given as it is, and so is what has no
    ``logits``.
    """
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or isinstance(output, Tensor):
        return output
    fields = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    more = any(v is not None and not str(n).endswith("logits") for n, v in fields.items())
    return output if more else logits
