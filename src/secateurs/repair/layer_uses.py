"""Which layers a network calls, how often, and what follows them; observed with one image."""

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs._io.text import one_line
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.originals.original import version_of
from secateurs.outputs import is_compiled
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.replaced_tensors import Parts, Replaced, packed_parts


@dataclass
class LayerUses:
    """The calls of layers in one forward pass.

    Attributes:
        counts: how often each layer is called, by the id of the tensor that identifies it.
        seen: the ids of all tensors that any function was handed.
        otherwise: the ids of those from which a function that is not a layer's computed something,
            such as an embedding that has the weight of the last layer.
        sizes: of each call, in order, the id of that tensor, and the bytes of all activations that
            the network holds at that moment.
        parts: of packed weights; see `Replaced`.
        before_batch_norm: by the ids of weights whose outputs are the inputs of a BatchNorm layer,
            the id of its running mean.
    """

    counts: dict[int, int] = field(default_factory=dict[int, int])
    seen: set[int] = field(default_factory=set[int])
    otherwise: set[int] = field(default_factory=set[int])
    sizes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    parts: Parts = field(default_factory=dict[int, tuple[Tensor, ...]])
    before_batch_norm: dict[int, int] = field(default_factory=dict[int, int])

    def called(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """The tensors that identify the calls of a weight: the weight itself, or all its parts.

        Empty if it is not called, or once as a whole and once in parts.
        """
        parts = self.parts.get(id(parameter), ())
        called = [id(one) in self.counts for one in (parameter, *parts)]
        if not any(called[1:]):
            return (parameter,) if called[0] else ()
        return parts if all(called[1:]) and not called[0] else ()


class _Recorder(Replaced):
    """Records the calls of layers."""

    def __init__(self, model: nn.Module, image: Tensor) -> None:
        super().__init__({}, self._arrive, packed_parts(model))
        self.uses = LayerUses(parts=self.parts)
        kept = (image, *model.parameters(), *model.buffers())
        self._kept = {address for one in kept for address in _memory(one)}
        # Of each layer its output, and how often that had been written to.
        self._outputs: list[tuple[int, weakref.ref[Tensor], int]] = []
        self._computed: list[weakref.ref[Tensor]] = []  # by any function

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        handed = _tensors((*args, *(kwargs or {}).values()))
        self.uses.seen |= set(map(id, handed))
        result = super().__torch_function__(func, types, args, kwargs)
        computed = _tensors(result)
        if LayerCall.is_known(func):
            call = LayerCall(func, args, kwargs or {})
            key = id(call.weight)
            self.uses.counts[key] = self.uses.counts.get(key, 0) + 1
            if call.is_batch_norm:
                written = version_of(call.input)
                for source, output, version in self._outputs:
                    if output() is call.input and version == written:
                        self.uses.before_batch_norm[source] = key
            else:
                self._outputs.append((key, weakref.ref(result), version_of(result)))
        elif func is not F.multi_head_attention_forward:  # the layers inside of it are seen
            memory = {address for one in computed for address in _memory(one)}
            self.uses.otherwise |= {id(one) for one in handed if memory - _memory(one).keys()}
        self._computed += map(weakref.ref, computed)
        return result

    def _arrive(self, key: int, call: LayerCall) -> None:
        """Called before each layer: what is in memory now is held while the layer is repaired."""
        del call
        self._computed = [one for one in self._computed if one() is not None]
        alive = (one for ref in self._computed if (one := ref()) is not None)
        held = {k: size for one in alive for k, size in _memory(one).items() if k not in self._kept}
        self.uses.sizes.append((key, sum(held.values())))


def _memory(tensor: Tensor) -> dict[int, int]:
    """The size in bytes of a tensor's storage, by its address."""
    if tensor.layout is not torch.strided:
        return {}
    storage = tensor.untyped_storage()
    return {storage.data_ptr(): storage.nbytes()}


def _tensors(value: Any) -> list[Tensor]:
    """The tensors in an argument or a result, also in lists."""
    if isinstance(value, list | tuple):
        return [tensor for one in value for tensor in _tensors(one)]
    return [value] if isinstance(value, Tensor) else []


@torch.no_grad()
def layer_uses(model: nn.Module, image: Tensor) -> LayerUses:
    """Run one image through a network, and record which layers it calls.

    Args:
        model: the network, in the mode that it is to run in.
        image: a batch of one.

    Raises:
        InvalidArgumentError: the network does not take such images, or is compiled.
    """
    if any(map(is_compiled, model.modules())):
        raise InvalidArgumentError(
            "the model is compiled, which hides the calls of its layers: give the model from "
            "before torch.compile, whose weights are the same"
        )
    recorder = _Recorder(model, image)
    try:
        with recorder:
            model(image)
    except (FailureError, InvalidArgumentError):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        raise InvalidArgumentError(
            f"the model does not take calibration images of shape {tuple(image.shape[1:])}: "
            f"{one_line(error)}; give images of the size, channels and normalisation that it was "
            "trained with"
        ) from error
    return recorder.uses
