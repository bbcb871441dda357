"""Calibration images of the command line: named, loaded, and kept apart from those scored."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from secateurs.cli.loading import make_loader
from secateurs.cli.option_types import NetworkAndData
from secateurs.errors import InvalidArgumentError
from secateurs.repair.repaired_values import calibration_tensor
from secateurs.zoo import ImageDataset, LoadedData, LoadedModel, load_unlabelled
from secateurs.zoo.images import halves
from secateurs.zoo.same_images import refuse_same_images, same_images


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
        asked: where named data sets are, and whether images that cannot be read are skipped.
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
    return _tensor(found, workers), found.name


def divided(data: LoadedData, workers: int | None) -> tuple[LoadedData, Tensor]:
    """One half of the data; and the other half, as calibration images.

    Those that the first half has, too, are left out of the second.

    Raises:
        InvalidArgumentError: there is only one image.
        FailureError: an image cannot be read.
    """
    whole = data.dataset
    if len(whole) < 2:
        raise InvalidArgumentError(
            "one image cannot both repair and be measured: give more, or others to --calibration"
        )
    measured, calibration = (
        ImageDataset(
            [whole.items[index] for index in half],
            whole.preprocess,
            skip_corrupt=whole.skip_corrupt,
        )
        for half in halves([item.label for item in whole.items])
    )
    twice = {number for number, _ in same_images(calibration, measured)}
    calibration.items = [item for n, item in enumerate(calibration.items) if n not in twice]
    if not calibration.items:
        raise InvalidArgumentError(
            f"the images of {data.name} are all the same: give others to --calibration"
        )
    others = replace(data, dataset=calibration, targets=None)
    return replace(data, dataset=measured, targets=None), _tensor(others, workers)


def _tensor(data: LoadedData, workers: int | None) -> Tensor:
    loader = make_loader(data, batch_size=64, workers=workers, device=torch.device("cpu"))
    return calibration_tensor(loader)
