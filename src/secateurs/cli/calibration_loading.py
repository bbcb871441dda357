"""Calibration images of the command line: named, loaded, and kept apart from those scored."""

from collections.abc import Sequence

import torch
from torch import Tensor

from secateurs.cli.loading import make_loader
from secateurs.cli.option_types import NetworkAndData
from secateurs.repair.repaired_values import calibration_tensor
from secateurs.zoo import LoadedData, LoadedModel, load_unlabelled
from secateurs.zoo.same_images import refuse_same_images


def load_calibration(
    spec: str,
    model: LoadedModel,
    asked: NetworkAndData,
    *,
    images: int,
    scored: Sequence[LoadedData],
    split: str | None = None,
    workers: int | None,
) -> tuple[Tensor, str]:
    """The calibration images, as the network takes them, and their name.

    Args:
        spec: a folder or a named data set.
        model: whose preprocessing they get.
        asked: where named data sets lie, and whether images that cannot be read are skipped.
        images: how many.
        scored: labelled images, none of which may be among them.
        split: of the data.
        workers: processes that decode.

    Raises:
        InvalidArgumentError: there are none, or one of them is scored, too.
        FailureError: an image cannot be read.
    """
    found = load_unlabelled(
        spec,
        model=model,
        split=split,
        data_root=asked.data_root,
        limit=images,
        skip_corrupt=asked.skip_corrupt,
    )
    for each in scored:
        refuse_same_images(found.dataset, each.dataset)
    loader = make_loader(found, batch_size=64, workers=workers, device=torch.device("cpu"))
    return calibration_tensor(loader), found.name
