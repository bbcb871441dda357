"""Second moments of the layers' inputs, for the criteria that read them."""

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._validation import check_count
from secateurs.parameters.layer_inputs import LayerInputs, attach_inputs, detach_inputs
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.weight_matrix import WeightMatrix
from secateurs.repair.calibration import calibrating
from secateurs.repair.layer_calls import LayerCall
from secateurs.repair.layer_uses import layer_uses
from secateurs.repair.least_squares import Moments
from secateurs.repair.lockstep import Lockstep, Site


class _InputSite:
    """A layer whose inputs are observed; it may be called several times.

    Args:
        name: of the weight.
    """

    def __init__(self, name: str):
        self.name = name
        self._layout = WeightMatrix()
        self._moments = Moments()

    def add(self, call: LayerCall, dense: LayerCall, /) -> None:
        """Add the inputs of one batch."""
        del dense
        self._layout = call.layout
        for rows, _ in call.blocks():
            self._moments.add(rows)

    def finish(self) -> None:
        """Do nothing."""

    @staticmethod
    def joined(sites: "Sequence[_InputSite]") -> LayerInputs:
        """The inputs of a weight, from one site or from those of its parts, one group each."""
        moment = torch.cat([one._moments.xx / one._moments.count for one in sites])
        layout = sites[0]._layout if len(sites) == 1 else WeightMatrix(len(sites))
        return LayerInputs(moment, layout)


@contextmanager
def observed_inputs(
    model: nn.Module, images: Tensor | Iterable[Any], *, batch_size: int = 8, memory: int = 2**30
) -> Generator[None]:
    """For a ``with`` block, the scores that need inputs get those of some images, without labels.

    One pass of the images through the model gives the second moments of the inputs of each
    convolution and linear layer.

    Args:
        model: the network, as it is scored: dense, or under the pruning it is under.
        images: as for `secateurs.repair`.
        batch_size: how many images run at once.
        memory: as for `secateurs.repair`.

    Raises:
        InvalidArgumentError: there are no images, or the model does not take them.

    Example:
        >>> import torch, secateurs as sc
        >>> model, images = torch.nn.Linear(2, 1, bias=False), torch.tensor([[1.0, 9.0]])
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 2.0]]))
        >>> with sc.repair.observed_inputs(model, images):
        ...     sc.select(model, 0.5, score="wanda").chosen["weight"]
        tensor([[ True, False]])
    """
    contents = ModelContents(model)
    contents.refuse_ranks("observed_inputs", "score by magnitude, or gather the weights into one")
    targets = contents.targets.values()
    with calibrating(model, images, check_count("batch_size", batch_size)) as batches:
        uses = layer_uses(model, batches[0][:1])
        seen = {
            target: {id(one): _InputSite(target.name) for one in uses.called(target.parameter)}
            for target in targets
            if target.parameter.dim() > 1 and target.parameter.numel()
        }
        sites: dict[int, Site] = {}
        for of_target in seen.values():
            sites |= of_target
        Lockstep(model, sites, None, uses, memory).run(batches)
    try:
        for target, of_target in seen.items():
            if of_target:
                attach_inputs(*target.places[0], _InputSite.joined(list(of_target.values())))
        yield
    finally:
        for module in model.modules():
            detach_inputs(module)
