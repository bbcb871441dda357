"""Calibration images that are scored, too: a network must not be measured on what repaired it."""

import torch
from torch import Tensor

from secateurs.errors import Argument, InvalidArgumentError

_SAMPLES = 64


class CalibrationOverlap:
    """Finds calibration images among those that are scored, as the network takes them.

    A few elements of each image tell almost all others apart; where these agree, all are compared.

    Args:
        calibration: images without labels (images, ...); None if there are none.
    """

    def __init__(self, calibration: Tensor | None):
        self._calibration = calibration
        self._numbers: dict[bytes, list[int]] = {}
        if calibration is not None:
            for number, key in enumerate(_keys(calibration)):
                self._numbers.setdefault(key, []).append(number)

    def refuse(self, scored: Tensor) -> None:
        """Check that none of a batch (images, ...) is a calibration image.

        Raises:
            InvalidArgumentError: one is; its number among the calibration images is named.
        """
        calibration = self._calibration
        if calibration is None or scored.shape[1:] != calibration.shape[1:]:
            return
        for image, key in zip(scored, _keys(scored), strict=True):
            for number in self._numbers.get(key, ()):
                if torch.equal(image.cpu().double(), calibration[number].cpu().double()):
                    raise InvalidArgumentError(
                        f"the calibration image with index {number} is scored, too: give other "
                        "images as ", Argument("calibration"), ", or leave it out there, since a "
                        "network must not be measured on what repaired it",
                    )  # fmt: skip


def _keys(images: Tensor) -> list[bytes]:
    """Some elements of each image, evenly spread."""
    flat = images.unsqueeze(-1).flatten(1)
    columns = torch.linspace(0, flat.shape[1] - 1, min(_SAMPLES, flat.shape[1])).long()
    some = flat[:, columns.to(flat.device)].cpu().double()
    return [each.tobytes() for each in some.numpy()]
