"""Layers whose forward is replaced, and the conditions under which the replacement counts.

A layer becomes an instance of a subclass of its own class, as under gradient pruning, so that its
parameters, its hooks and its ``state_dict`` stay as they are. Copies and pickles are of the layer's
own class again: a copy has weights of its own, for which nothing was measured.
"""

import copyreg
import warnings
from collections.abc import Callable
from functools import cache, wraps
from operator import itemgetter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from secateurs.acceleration.sparse_kernels import Kernel
from secateurs.errors import AccelerationWarning, InvalidArgumentError
from secateurs.gradient_pruning.modules import class_before

_KEY = "_secateurs_accelerated"
_BASE = "secateurs_dense"  # the attribute of our subclass for the layer's own class
_transforms: Callable[[], object] = torch._C._functorch.peek_interpreter_stack  # pyright: ignore
"""The innermost transformation of torch.func that is running; None without one."""


DENSE_SINCE = {
    "gradients": "gradients are needed: call the model inside of torch.no_grad() or "
    "torch.inference_mode()",
    "training": "the model is in training mode: call model.eval()",
    "autocast": "autocast is on: accelerate the model in the dtype that it runs in",
    "weights": "the weights were changed, replaced or moved since accelerate: call refresh() of "
    "what accelerate returned",
    "layer": "the stride, padding, dilation, groups or bias of a layer was replaced since "
    "accelerate: call refresh() of what accelerate returned",
    "input": "the input has another dtype or device than the example that was measured: call "
    "accelerate with such an example",
    "threads": "the number of threads is not the one that was measured: call torch.set_num_threads "
    "with that, or refresh() of what accelerate returned",
}
"""Why layers run dense, and what to do about it, by the keys of `Conditions.dense`."""


class Conditions:
    """What all accelerated layers of a model share.

    Args:
        threads: how many threads were measured with.

    Attributes:
        warned: the reasons that were warned of.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self.warned: set[str] = set()

    def dense(self, reason: str, words: str = "") -> None:
        """Warn why a layer runs dense, once for each reason."""
        if reason not in self.warned:
            self.warned.add(reason)
            warnings.warn(
                AccelerationWarning(f"layers run dense, since {words or DENSE_SINCE[reason]}"),
                stacklevel=7,  # where the model is called from, about
            )


Replacement = Callable[[nn.Module, Callable[..., Tensor], Tensor], Tensor]
"""What replaces the forward of a layer: takes the layer, its own forward, and the input."""


class FastLayer:
    """The kernels of one layer, by the shape of the input, and the weight they were made of.

    Args:
        name: of the layer.
        module: the layer.
        conditions: what all layers share.

    Attributes:
        is_stale: whether the weight is known to have changed, as its version need not show.
    """

    def __init__(self, name: str, module: nn.Module, conditions: Conditions):
        self.name, self.conditions = name, conditions
        self.weight = cast(Tensor, module._parameters["weight"])
        # It shares the weight's memory, and so keeps that from being freed and used for others.
        self._values, self._version = self.weight.detach(), self.weight._version
        self._geometry = _geometry_of(module)
        self.is_stale = False
        self.kernels: dict[tuple[int, ...], Kernel | None] = {}

    def __call__(self, module: nn.Module, forward: Callable[..., Tensor], values: Tensor) -> Tensor:
        """The layer's output, by a kernel where all is as it was measured, else by ``forward``."""
        kernel = self._kernel(module, values)
        if kernel is None:
            return forward(module, values)
        return kernel(values, module._parameters["bias"])

    def _kernel(self, module: nn.Module, values: Tensor) -> Kernel | None:
        conditions = self.conditions
        if type(values) is not Tensor or _is_transformed():
            return None
        if values.layout != torch.strided or values.is_nested:
            return None
        if module.training:
            return conditions.dense("training")
        weight = module._parameters.get("weight")
        if not self.is_current(weight):
            return conditions.dense("weights")
        if "bias" not in module._parameters or _geometry_of(module) != self._geometry:
            return conditions.dense("layer")
        if torch.is_grad_enabled() and _needs_gradients(values, *module._parameters.values()):
            return conditions.dense("gradients")
        if values.dtype != self.weight.dtype or values.device != self.weight.device:
            return conditions.dense("input")
        if torch.is_autocast_enabled(values.device.type):
            return conditions.dense("autocast")
        if values.is_cpu and torch.get_num_threads() != conditions.threads:
            return conditions.dense("threads")
        try:
            return self.kernels[values.shape]
        except KeyError:
            known = " and ".join(str(tuple(shape)) for shape in self.kernels)
            return conditions.dense(
                "shape",
                f"{self.name} gets an input of shape {tuple(values.shape)}, and {known} was "
                "measured: give accelerate a list with an example of each shape",
            )

    def __deepcopy__(self, memo: object) -> None:
        """Nothing: a copy of the layer that is made attribute by attribute runs dense."""

    def is_current(self, weight: Tensor | None) -> bool:
        """Whether a weight is the one that the kernels were made of, unchanged."""
        return (
            weight is not None
            and not self.is_stale
            and weight is self.weight
            and weight._version == self._version
            and weight.is_set_to(self._values)
        )


_read_geometry = itemgetter("stride", "padding", "dilation", "groups", "padding_mode")


def _geometry_of(module: nn.Module) -> object:
    """What the forward of a convolution reads besides its parameters; None for a linear layer."""
    attributes = vars(module)
    return _read_geometry(attributes) if "stride" in attributes else None


def install(module: nn.Module, fast: Replacement) -> None:
    """Replace a layer's forward."""
    vars(module)[_KEY] = fast
    object.__setattr__(module, "__class__", _subclass(type(module)))


def uninstall(module: nn.Module) -> None:
    """Give a layer its own forward back; nothing happens if it has it."""
    if fast_layer(module) is not None:
        object.__setattr__(module, "__class__", class_before(type(module), _BASE))
    vars(module).pop(_KEY, None)


def fast_layer(module: nn.Module) -> Replacement | None:
    """What replaces a layer's forward; None if nothing does."""
    return vars(module).get(_KEY) if hasattr(type(module), _BASE) else None


@cache
def _subclass(base: type[nn.Module]) -> type[nn.Module]:
    plain = base.forward

    @wraps(plain)  # keeps its signature, which other code inspects
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        fast = vars(self).get(_KEY)
        if fast is None or kwargs or len(args) != 1:
            return plain(self, *args, **kwargs)
        return fast(self, plain, args[0])

    def reduce(self: nn.Module, protocol: Any) -> Any:  # noqa: ARG001
        state = {name: value for name, value in self.__getstate__().items() if name != _KEY}
        # What pickles of the oldest protocol hold; newer ones insist on the class of the object.
        return copyreg._reconstructor, (base, object, None), state  # type: ignore[attr-defined]

    def script(self: nn.Module) -> nn.Module:  # called by torch.jit.script
        raise InvalidArgumentError(
            f"a {self._get_name()} is accelerated, and scripted code runs dense: call restore() of "
            "what accelerate returned, and script the model then"
        )

    namespace = {
        "forward": forward, "__reduce_ex__": reduce, "__prepare_scriptable__": script,
        "__module__": base.__module__, _BASE: base,
    }  # fmt: skip
    return type(base.__name__, (base,), namespace)


def _is_transformed() -> bool:
    """Whether the call is traced, compiled, or transformed by torch.func or forward-mode AD."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
        or _transforms() is not None
        or forward_ad._current_level >= 0
    )


def _needs_gradients(*tensors: Tensor | None) -> bool:
    return any(tensor is not None and tensor.requires_grad for tensor in tensors)
