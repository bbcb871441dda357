"""The values that a repair gave a model, to be put into it again without another repair."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateurs.errors import InvalidArgumentError
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import original_of, originals_of, parameter_of
from secateurs.provenance import tensors_sha256
from secateurs.repair.calibration import calibration_images
from secateurs.repair.changes import Changes, write


def repaired_values(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters and buffers that `secateurs.repair` changed, by name."""
    return {
        name: original.parameter.detach().cpu().clone()
        for name, module, attribute, original in originals_of(model.named_modules())
        if original.repaired is not None and original_of(module, attribute) is original
    }


def put_repaired_values(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put the values of an earlier repair into a model that is pruned by the same masks.

    Afterwards the model is as that repair left it, also for `secateurs.restore`.

    Args:
        model: the network, pruned, not repaired.
        values: what `repaired_values` gave.

    Raises:
        InvalidArgumentError: the values are of another network; the model is as it was.
    """
    modules = dict(model.named_modules())
    found: list[tuple[nn.Module, str, Tensor, Tensor]] = []
    for name, wanted in values.items():
        prefix, _, attribute = name.rpartition(".")
        tensor = parameter_of(modules[prefix], attribute) if prefix in modules else None
        if tensor is None or tensor.shape != wanted.shape:
            raise InvalidArgumentError(
                f"these values are of another network: it has no {name} of shape "
                f"{tuple(wanted.shape)}"
            )
        found.append((modules[prefix], attribute, tensor, wanted))
    changes = Changes()
    with changing(model):
        try:
            for module, attribute, tensor, wanted in found:
                changes.about_to(module, attribute)
                write(tensor, wanted)
            changes.keep()
        except BaseException:
            changes.undo()
            raise


def calibration_sha256(images: Tensor) -> str:
    """First 16 hex digits of a SHA-256 over images as a network takes them."""
    return tensors_sha256({"images": images})


def calibration_tensor(given: object) -> Tensor:
    """All calibration images as one tensor, (images, ...); see `secateurs.repair`.

    It has the memory format that a repair uses, so that a repair need not copy it.

    Raises:
        InvalidArgumentError: there are none, or they are of several shapes, or NaN.
    """
    images = torch.cat(calibration_images(given, 2**16))  # pyright: ignore[reportArgumentType]
    return images.contiguous(memory_format=torch.channels_last) if images.dim() == 4 else images
