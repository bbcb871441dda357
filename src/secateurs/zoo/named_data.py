"""Named data sets: the digits, and torchvision's small sets."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs._io.text import one_line
from secateurs._validation import check_choice
from secateurs.errors import Argument, FailureError, require
from secateurs.zoo.classes import match_labels
from secateurs.zoo.digits import SPLITS, digits_images
from secateurs.zoo.images import Item, Listing
from secateurs.zoo.loaded_model import LoadedModel

_DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class _Named:
    """The class in torchvision of a set, the name of its labels, and classes that it does not name.

    Attributes:
        by_word: whether the class takes ``split="test"`` instead of ``train=False``.
    """

    factory: str
    by_word: bool = False
    labels: str = "targets"
    classes: tuple[str, ...] = ()


_SETS = {
    "mnist": _Named("MNIST", classes=_DIGITS),
    "fashion-mnist": _Named("FashionMNIST"),
    "kmnist": _Named("KMNIST"),
    "usps": _Named("USPS", classes=_DIGITS),
    "cifar10": _Named("CIFAR10"),
    "cifar100": _Named("CIFAR100"),
    "svhn": _Named("SVHN", by_word=True, labels="labels", classes=_DIGITS),
    "stl10": _Named("STL10", by_word=True, labels="labels"),
}
DOWNLOADED = tuple(_SETS)
NAMES = ("digits", *DOWNLOADED)


def canonical(spec: str) -> str:
    """The name in lower case with ``-`` for ``_``; other common spellings are understood."""
    plain = spec.strip().lower().replace("_", "-")
    return {"fashionmnist": "fashion-mnist", "cifar-10": "cifar10", "cifar-100": "cifar100"}.get(
        plain, plain
    )


def read_named(
    name: str, split: str | None, model: LoadedModel | None, root: Path, *, download: bool
) -> Listing:
    """List the images of a set in `NAMES`; ``split`` is ``train`` or ``test`` (the default).

    ``root`` is the folder of torchvision's sets, into which an absent one may be downloaded.

    Raises:
        InvalidArgumentError: an unknown split, or a model with another number of classes.
        FailureError: it is absent and cannot be downloaded.
    """
    chosen = check_choice("split", split or "test", SPLITS)
    if name == "digits":
        from PIL import Image

        arrays, labels = digits_images(chosen)
        images, classes = list(zip(map(Image.fromarray, arrays), labels, strict=True)), _DIGITS
    else:
        entry = _SETS[name]
        images = _torchvision_set(name, entry, chosen, root, download)
        labels, classes = getattr(images, entry.labels), entry.classes or images.classes
    indices = match_labels(classes, model, name)
    items = [Item((images, index), indices[int(label)]) for index, label in enumerate(labels)]
    return Listing(items, chosen, list(classes))


def _torchvision_set(name: str, entry: _Named, split: str, root: Path, download: bool) -> Any:
    require("torchvision", "a data set of torchvision")
    from torchvision import datasets

    factory: Callable[..., Any] = getattr(datasets, entry.factory)
    option: dict[str, Any] = {"split": split} if entry.by_word else {"train": split == "train"}
    try:
        return factory(str(root), download=False, **option)
    except (RuntimeError, OSError) as error:  # absent or damaged
        if not download:
            raise FailureError(
                f"{name} is not in {root}: ", *_remedy(entry), ", or allow the download"
            ) from error
    try:
        root.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):  # torchvision prints; stdout is for results
            return factory(str(root), download=True, **option)
    except Exception as error:
        raise FailureError(
            f"{name} is not in {root} and cannot be downloaded ({one_line(error)}): ",
            *_remedy(entry),
        ) from error


def _remedy(entry: _Named) -> tuple[object, ...]:
    return (
        f"put the files of torchvision.datasets.{entry.factory} there, or name the folder that "
        "holds them: ",
        Argument("data_root", "DIR"),
    )
