"""Which layers a network calls, how often, and what is behind what; seen on one image."""

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.replaced_tensors import Parts, Replaced, packed_parts


@dataclass
class LayerUses:
    """The calls of layers in one forward pass.

    Attributes:
        counts: how often each layer is called, by the id of the tensor that it is known by.
        seen: the ids of all tensors that any function was handed.
        sizes: of each call the id of that tensor, and the bytes that go in, in order.
        parts: of packed weights; see `Replaced`.
        before_batch_norm: the ids of weights whose output goes straight into a BatchNorm layer,
            with the id of that one's running mean.
    """

    counts: dict[int, int] = field(default_factory=dict[int, int])
    seen: set[int] = field(default_factory=set[int])
    sizes: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    parts: Parts = field(default_factory=dict[int, tuple[Tensor, ...]])
    before_batch_norm: dict[int, int] = field(default_factory=dict[int, int])

    def called(self, parameter: Tensor) -> tuple[Tensor, ...]:
        """What the calls of a weight's layer are known by: the weight itself, or all its parts.

        Nothing if it is not called, or here as a whole and there in parts.
        """
        parts = self.parts.get(id(parameter), ())
        called = [id(one) in self.counts for one in (parameter, *parts)]
        if not any(called[1:]):
            return (parameter,) if called[0] else ()
        return parts if all(called[1:]) and not called[0] else ()

    def sizes_of(self, keys: Collection[int]) -> list[int]:
        """The bytes that go into each call of some layers, in order."""
        return [size for key, size in self.sizes if key in keys]


class _Recorder(Replaced):
    """Notes the calls of layers."""

    def __init__(self, parts: Parts) -> None:
        super().__init__({}, parts=parts)
        self.uses = LayerUses(parts=parts)
        self._outputs: list[tuple[int, Tensor]] = []  # kept, so that no id is used twice

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        handed = (*args, *(kwargs or {}).values())
        self.uses.seen |= {id(one) for one in handed if isinstance(one, Tensor)}
        result = super().__torch_function__(func, types, args, kwargs)
        if LayerCall.is_known(func):
            call = LayerCall(func, args, kwargs or {})
            key = id(call.weight)
            self.uses.counts[key] = self.uses.counts.get(key, 0) + 1
            self.uses.sizes.append((key, call.input.nbytes))
            if call.is_batch_norm:
                source = (k for k, output in self._outputs if output is call.input)
                self.uses.before_batch_norm |= dict.fromkeys(source, key)
            else:
                self._outputs.append((key, result))
        return result


@torch.no_grad()
def layer_uses(model: nn.Module, image: Tensor) -> LayerUses:
    """Run one image through a network, and see which layers it calls.

    Args:
        model: the network, in the mode that it is to run in.
        image: a batch of one.

    Raises:
        InvalidArgumentError: the network does not take such images.
    """
    recorder = _Recorder(packed_parts(model))
    try:
        with recorder:
            model(image)
    except (FailureError, InvalidArgumentError):
        raise
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
        raise InvalidArgumentError(
            f"the model does not take calibration images of shape {tuple(image.shape[1:])}: {why}; "
            "give images of the size, channels and normalisation that it was trained with"
        ) from error
    return recorder.uses
