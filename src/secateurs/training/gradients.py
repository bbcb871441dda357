"""Gradients that regrowth reads: whether they are there, and finite."""

from collections.abc import Sequence

import numpy as np
import torch

from secateurs.distributed.dtensor import local_of
from secateurs.distributed.process_group import team_of_tensors
from secateurs.errors import InvalidArgumentError
from secateurs.parameters.target import Target


def check_gradients(targets: Sequence[Target]) -> None:
    """Check that every parameter has a gradient.

    Raises:
        InvalidArgumentError: one has none.
    """
    for target in targets:
        if target.parameter.grad is None:
            raise InvalidArgumentError(
                f"{target.name} has no gradient to grow by: call pruner.step() after "
                "loss.backward() and before optimizer.zero_grad(), and exclude what is not trained"
            )


def all_finite(targets: Sequence[Target]) -> bool:
    """Whether all gradients are finite, on all ranks of a sharded model."""
    found = [torch.isfinite(local_of(target.grad.detach())).all() for target in targets]
    broken = sum(not bool(flag) for flag in found)
    team = team_of_tensors([target.parameter for target in targets])
    return not (broken if team is None else int(team.sum(np.array([broken]))[0]))
