"""Models that cannot be accelerated, and what to do instead."""

import torch
from torch import nn

from secateurs.acceleration.layer_swap import fast_layer
from secateurs.errors import InvalidArgumentError
from secateurs.originals.module_state import masks_of
from secateurs.outputs import is_compiled
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.weight_counts import quantised_layers

_OBSERVERS = ("torch.ao.quantization.observer", "torch.ao.quantization.fake_quantize")


def refuse_model(contents: ModelContents) -> None:
    """Refuse a model whose layers cannot be replaced, or are replaced already.

    Raises:
        InvalidArgumentError: it is scripted, compiled, quantised or prepared for that, distributed,
            a surrogate, pruned in its backward pass, or accelerated.
    """
    if "_proxied" in vars(contents.model):
        raise InvalidArgumentError(
            "a surrogate is pruned afresh at every call, so there are no zeros to count on: "
            "prune its network with global_prune, and accelerate that"
        )
    for name, module in contents.modules:
        why = _why_not(module)
        if why:
            where = f"{name} of the model" if name else "the model"
            raise InvalidArgumentError(f"{where} {why}")
    quantised = next(quantised_layers(contents), None)
    if quantised is not None:
        raise InvalidArgumentError(
            f"{quantised[0] or 'the model'} is quantised, so its weights are packed integers: "
            "accelerate the floating-point model, or keep the quantised one"
        )
    contents.refuse_ranks(
        "accelerate", "hand in the plain model (of DistributedDataParallel, .module)", copies=True
    )


def _why_not(module: nn.Module) -> str:
    if isinstance(module, torch.jit.ScriptModule):
        return (
            "is scripted or traced, and such code runs dense: accelerate the model that it was "
            "made from, and call that"
        )
    if is_compiled(module):
        return (
            "is compiled, and compiled code runs dense: accelerate the model without torch.compile"
        )
    if any(cls.__module__.startswith(_OBSERVERS) for cls in type(module).__mro__):
        return (
            "observes values for quantisation, and would take the example for calibration data: "
            "accelerate the model from before torch.ao.quantization.prepare"
        )
    if masks_of(module):
        return (
            "is pruned in its backward pass alone, so its forward pass has no zeros: call "
            "restore(model), and global_prune"
        )
    if fast_layer(module) is not None:
        return (
            "is accelerated already: call restore() or refresh() of what accelerate returned; if "
            "that is lost, copy.deepcopy(model) is plain"
        )
    return ""
