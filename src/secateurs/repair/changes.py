"""What a repair changes in a model, so that it can be undone and `secateurs.restore` works."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.originals.module_state import (
    ORIGINAL_SUFFIX,
    NamedModules,
    keep_original,
    keeps_original,
    original_of,
    originals_of,
    parameter_of,
)
from secateurs.originals.original import Original
from secateurs.originals.restore_weights import compare_all_values, copy_bits


@dataclass(frozen=True)
class _Changed:
    """A parameter or buffer that is changed.

    Attributes:
        module: the module that has it.
        attribute: its name in the module.
        tensor: the parameter or buffer.
        before: a copy of its values.
        trained: whether it was pruned, and trained since.
    """

    module: nn.Module
    attribute: str
    tensor: Tensor
    before: Tensor
    trained: bool


class Changes:
    """Parameters and buffers that are about to be changed.

    Args:
        dense: the dense network's tensors, where they differ from the model's; see `dense_values`.

    Attributes:
        dense: the dense network's tensors, by the ids of the model's: those that were handed in,
            and the first values of all others that are changed.
    """

    def __init__(self, dense: Mapping[int, Tensor] = MappingProxyType({})) -> None:
        self.dense = dict(dense)
        self._changed: dict[int, _Changed] = {}
        self._masks: dict[int, Tensor] = {}

    def about_to(self, module: nn.Module, attribute: str) -> None:
        """Record the values of a parameter or buffer, before its first change.

        Raises:
            InvalidArgumentError: the module has an attribute with the name of its original.
        """
        tensor = parameter_of(module, attribute)
        if tensor is None or id(tensor) in self._changed:
            return
        name = attribute + ORIGINAL_SUFFIX
        if hasattr(module, name) and not keeps_original(module, attribute):
            raise InvalidArgumentError(
                f"{attribute} of a {type(module).__name__} cannot be repaired: its module already "
                f"has an attribute {name}"
            )
        kept = original_of(module, attribute)
        trained = kept is not None and kept.trained
        before = tensor.detach().clone()
        self._changed[id(tensor)] = _Changed(module, attribute, tensor, before, trained)
        self.dense.setdefault(id(tensor), before)

    def remasked(self, parameter: Tensor, mask: Tensor) -> None:
        """Record that a parameter has another mask: True is kept."""
        self._masks[id(parameter)] = mask

    def mask_of(self, parameter: Tensor, before: Tensor) -> Tensor:
        """The mask that was recorded for a parameter, else ``before``."""
        return self._masks.get(id(parameter), before)

    def undo(self) -> None:
        """Put all values back, bit for bit."""
        for one in self._changed.values():
            copy_bits(one.tensor, one.before)

    def keep(self) -> None:
        """Keep the original values beside what was changed, for `secateurs.restore`."""
        for one in self._changed.values():
            original = original_of(one.module, one.attribute)
            if original is None:
                original = Original(one.before, one.tensor)
                keep_original(one.module, one.attribute, original)
            if id(one.tensor) in self._masks:
                original.note_mask(self._masks[id(one.tensor)])
            if not one.trained:
                original.note_repaired()


def dense_values(model: nn.Module, dense: nn.Module | None) -> dict[int, Tensor]:
    """The dense network's parameters and buffers, by the ids of the model's.

    Args:
        model: the network, pruned.
        dense: the dense network; None if it is the originals that are kept in the model.

    Raises:
        InvalidArgumentError: ``dense`` is another network, or None although the model was trained
            since it was pruned.
    """
    if dense is None:
        _refuse_trained(list(model.named_modules()))
    given = None if dense is None else _tensors(dense)
    found: dict[int, Tensor] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # its tensors are other objects each time
            continue
        for attribute in (*module._parameters, *module._buffers):
            tensor = parameter_of(module, attribute)
            if tensor is None:
                continue
            name = f"{prefix}.{attribute}" if prefix else attribute
            original = original_of(module, attribute)
            if given is not None:
                other = given.get(name)
                if other is None or other.shape != tensor.shape:
                    raise InvalidArgumentError(
                        f"dense is another network: it has no {name} of shape "
                        f"{tuple(tensor.shape)}; hand in a copy of this one from before pruning"
                    )
                if other is not tensor:  # a tensor of both networks may change
                    found[id(tensor)] = other.detach().to(tensor.device, tensor.dtype)
            elif original is not None:
                found[id(tensor)] = original.beside.detach()
    return found


def _refuse_trained(modules: NamedModules) -> None:
    """Refuse weights that were trained since pruning: repair would take them back to before it.

    Raises:
        InvalidArgumentError: there are such weights.
    """
    compare_all_values(modules)
    trained = [
        name
        for name, module, attribute, _ in originals_of(modules)
        if (original := original_of(module, attribute)) is not None and original.was_trained
    ]
    if trained:
        raise InvalidArgumentError(
            f"{listed(trained)}: trained since pruning, so the originals are not the dense network "
            "of these weights: prune again, which starts from what was learned, or hand in the "
            "network to come close to with ",
            Argument("dense"),
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(remove_duplicate=False),
             *model.named_buffers(remove_duplicate=False))  # fmt: skip
    return dict(named)


@torch.no_grad()
def write(tensor: Tensor, values: Tensor) -> None:
    """Write values into a parameter or buffer, in its dtype."""
    tensor.copy_(values.reshape(tensor.shape))
