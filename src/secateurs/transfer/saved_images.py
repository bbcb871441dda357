"""Adversarial images on disk, in the layout that TransferAttack's evaluation reads.

``FOLDER/labels.csv`` has the columns filename, label and targeted_label (classes counted from 0),
``FOLDER/images/`` the clean images, and ``FOLDER/adversarial/NAME/`` the attacked ones under the
same file names. TransferAttack (github.com/Trustworthy-AI-Group/TransferAttack) then scores them:
``python main.py --eval --targeted --input_dir FOLDER --output_dir FOLDER/adversarial/NAME``.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from secateurs._io.durable import replace_files
from secateurs._io.regular_files import open_regular
from secateurs._io.text import one_line
from secateurs.errors import FailureError
from secateurs.transfer.image_choice import ImageSet
from secateurs.transfer.plan import Job

LABELS = "labels.csv"


class SavedImages:
    """Writes the images of a benchmark, and checks them.

    Raises:
        FailureError: the folder cannot be written.
    """

    def __init__(self, folder: Path, images: ImageSet, eps: float) -> None:
        self.folder, self.images, self.eps = folder, images, eps
        _write(folder / "images", images.names, images.levels)
        _put({folder / LABELS: _labels(images).encode()})

    def folder_of(self, job: Job) -> Path:
        """The folder of one attack's images."""
        parts = (job.group.name, str(job.variant), f"seed {job.seed}")
        name = "__".join(re.sub(r"[^\w.=-]+", "-", part).strip("-.") for part in parts if part)
        return self.folder / "adversarial" / name

    def save(self, job: Job, start: int, levels: Tensor) -> None:
        """Write the images of one batch, read them again, and check them against epsilon."""
        stop = start + len(levels)
        names = self.images.names[start:stop]
        folder = self.folder_of(job)
        _write(folder, names, levels)
        check_saved(folder, self.folder / "images", names, self.eps)


def check_saved(folder: Path, clean: Path, names: Sequence[str], eps: float) -> None:
    """Compare saved images with the clean ones, pixel by pixel in 8 bits.

    Args:
        folder: the attacked images.
        clean: the images before the attack, under the same names.
        names: the names of the images to compare.
        eps: the most that a pixel may differ, of 1.

    Raises:
        FailureError: one differs by more, has another size, or cannot be read.
    """
    for name in names:
        attacked, original = _read(folder / name), _read(clean / name)
        if attacked.shape != original.shape:
            raise FailureError(
                f"{folder / name} has another size than {clean / name}: remove the folder and save "
                "the images again"
            )
        most = int((attacked - original).abs().max())
        if most > eps * 255 + 1e-6:
            raise FailureError(
                f"{folder / name} differs from {clean / name} by {most} of 255 grey levels, more "
                f"than epsilon ({eps * 255:g}): remove the folder and save the images again"
            )


def _labels(images: ImageSet) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("filename", "label", "targeted_label"))
    columns = images.names, images.labels.tolist(), images.targets.tolist()
    writer.writerows(zip(*columns, strict=True))
    return text.getvalue()


def _write(folder: Path, names: Sequence[str], levels: Tensor) -> None:
    _put({folder / name: _png(one) for name, one in zip(names, levels, strict=True)})


def _put(contents: dict[Path, bytes]) -> None:
    for folder in {path.parent for path in contents}:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FailureError(f"cannot make {folder}: {error.strerror or error}") from error
    replace_files(contents)


def _png(levels: Tensor) -> bytes:
    array = levels.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0]).save(file, format="PNG")
    return file.getvalue()


def _read(path: Path) -> Tensor:
    try:
        with open_regular(path) as file, Image.open(file, formats=("PNG",)) as image:
            mode = image.convert("RGB") if image.mode != "L" else image
            levels = torch.frombuffer(bytearray(mode.tobytes()), dtype=torch.uint8)
            return levels.view(mode.height, mode.width, -1).to(torch.int16)
    except Exception as error:  # another file there may be anything, and PIL may raise anything
        reason = getattr(error, "strerror", None) or one_line(error)
        raise FailureError(f"cannot read {path} again: {reason}") from error
