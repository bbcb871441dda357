"""How far a pruned network is from the dense one: in its outputs, and in its features."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateurs.outputs import logits_of
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_uses import LayerUses
from secateurs.repair.replaced_tensors import Replaced
from secateurs.training.knowledge_distillation import soft_divergence

_FEATURES = 8


def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of class probabilities, a mean over images and tokens."""
    return soft_divergence(outputs.float().flatten(0, -2), wanted.float().flatten(0, -2))


@torch.no_grad()
def divergence(outputs: Tensor, wanted: Tensor) -> float:
    """`loss` as a number."""
    return float(loss(outputs, wanted))


@torch.no_grad()
def outputs_of(
    model: nn.Module, batches: Sequence[Tensor], values: Mapping[int, Tensor] | None = None
) -> Tensor:
    """The outputs on all images.

    Args:
        model: the network.
        batches: images.
        values: tensors to use instead of the model's, by the ids of those.
    """
    with Replaced(values or {}):
        return torch.cat([logits_of(model(batch), of_tokens=True) for batch in batches])


def feature_keys(uses: LayerUses, pruned: Collection[int]) -> list[int]:
    """The layers whose outputs are compared: up to 8 of those that are pruned, evenly spread.

    Args:
        uses: the calls of layers.
        pruned: the ids of pruned weights.

    Returns:
        The ids of the tensors that identify them; of a layer that BatchNorm follows, that one's.
    """
    called = [key for key, _ in uses.sizes if key in pruned and uses.counts[key] == 1]
    step = max(1, -(-len(called) // _FEATURES))
    chosen = called[::-1][::step][::-1]
    return [uses.before_batch_norm.get(key, key) for key in chosen]


class Features(Replaced):
    """Collects the outputs of some layers in a ``with`` block.

    Args:
        keys: the ids of the tensors that identify the layers.
        values: as for `outputs_of`.

    Attributes:
        found: the outputs, by those ids.
    """

    def __init__(self, keys: Collection[int], values: Mapping[int, Tensor]):
        super().__init__(values)
        self.keys, self.found = keys, dict[int, Tensor]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if self.keys and LayerCall.is_known(func):
            key = id(LayerCall(func, args, kwargs or {}).weight)
            if key in self.keys:
                self.found[key] = result
        return result

    def error(self, wanted: "Features") -> Tensor:
        """The mean over layers of the outputs' mean squared error divided by their variance."""
        errors: list[Tensor] = []
        for key, values in wanted.found.items():
            spread = values.float().var().clamp(min=1e-12)
            errors.append(F.mse_loss(self.found[key].float(), values.float()) / spread)
        return torch.stack(errors).mean()
