"""Preprocessing: the transform from an image to a model's input, with its checked values."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor

from secateurs._io.text import counted
from secateurs._validation import check_choice, check_count
from secateurs.errors import Argument, InvalidArgumentError, require
from secateurs.zoo.decoding import to_mode

if TYPE_CHECKING:
    from PIL import Image

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")
LARGEST_SIDE = 16_384
"""Pixels: far more than any network takes, and 3 GiB for one image."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Transform = Callable[["Image.Image"], Tensor]


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of a model's images.

    Attributes:
        img_size: height of the model's input, in pixels.
        crop_pct: input size divided by the size that the image is resized to before the crop.
        interpolation: filter of the resize, one of `INTERPOLATIONS`.
        mean: subtracted from each channel after scaling to [0, 1]; its length is the number of
            channels (3 reads images as RGB, 1 as grey).
        std: each channel is divided by it.
        crop_mode: `center` (keep the aspect ratio, crop the rest), `squash` (resize both edges)
            or `border` (fit the whole image, pad), as timm names them.
        source: the origin of these values.
        transform: the function itself, from a PIL image to a float tensor C x H x W.
    """

    img_size: int
    crop_pct: float
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_mode: str = "center"
    source: str = "custom"
    transform: Transform = field(kw_only=True, repr=False, compare=False)

    @property
    def image_mode(self) -> str:
        """The PIL mode that images are converted to: ``RGB``, or ``L`` for one channel."""
        return "L" if len(self.mean) == 1 else "RGB"

    def __call__(self, image: "Image.Image") -> Tensor:
        """Convert ``image`` to this model's mode and transform it to a tensor C x H x W."""
        return self.transform(to_mode(image, self.image_mode))

    def blank(self) -> Tensor:
        """A black image as a tensor C x H x W."""
        from PIL import Image

        return self(Image.new(self.image_mode, (64, 64)))

    def __str__(self) -> str:
        return (
            f"size {self.img_size}, crop {self.crop_pct:.4g} ({self.crop_mode}), "
            f"{self.interpolation}, mean {_numbers(self.mean)}, std {_numbers(self.std)}, "
            f"from {self.source}"
        )


@dataclass(frozen=True)
class Overrides:
    """The caller's changes to the model's own preprocessing; None keeps the model's value.

    Attributes:
        img_size: this and the other fields are those of `Preprocess`.
        crop_pct: above 0, at most 1.
        interpolation: one of `INTERPOLATIONS`.
        mean: 1 or 3 numbers.
        std: 1 or 3 positive numbers.
        crop_mode: one of `CROP_MODES`.

    Raises:
        InvalidArgumentError: a value is of the wrong kind or out of range.
    """

    img_size: int | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    crop_mode: str | None = None

    def __post_init__(self) -> None:
        if self.img_size is not None:
            size = check_count("img_size", self.img_size)
            if size > LARGEST_SIDE:
                raise InvalidArgumentError(
                    Argument("img_size"), f" may be at most {LARGEST_SIDE:,} pixels, got {size:,}; "
                    "networks usually take 224: write ", Argument("img_size", 224),
                )  # fmt: skip
            object.__setattr__(self, "img_size", size)
        crop = self.crop_pct
        if crop is not None and not (_is_number(crop) and 0 < crop <= 1):
            raise InvalidArgumentError(
                Argument("crop_pct"),
                f" must be above 0 and at most 1, such as 0.875; got {crop!r}",
            )
        if self.interpolation is not None:
            check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        if self.crop_mode is not None:
            check_choice("crop_mode", self.crop_mode, CROP_MODES)
        for name in ("mean", "std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _checked_channels(name, value))

    def given(self) -> dict[str, Any]:
        """The overrides that are set, by name."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


def build(base: Mapping[str, Any], overrides: Overrides, source: str) -> Preprocess:
    """Make the preprocessing that timm would make from these values.

    Args:
        base: img_size, crop_pct, interpolation, mean, std, and optionally crop_mode;
            ``img_size`` may be a pair (height, width). The length of ``mean`` is the number of
            channels that the model reads.
        overrides: replace values of ``base``.
        source: the origin of ``base``; the names of overridden values are appended.

    Returns:
        The values with a timm evaluation transform.

    Raises:
        InvalidArgumentError: mean or std has neither one number nor one per channel.
    """
    require("timm", "preprocessing")
    from timm.data.transforms_factory import create_transform

    given = overrides.given()
    config: dict[str, Any] = {"crop_mode": "center", **base, **given}
    channels = len(base["mean"])
    mean, std = (_per_channel(name, config[name], channels) for name in ("mean", "std"))
    size = config["img_size"]
    height, width = (size, size) if isinstance(size, int) else map(int, size)
    transform = create_transform(
        input_size=(channels, height, width),
        is_training=False,
        interpolation=config["interpolation"],
        mean=mean,
        std=std,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
    )
    return Preprocess(
        img_size=height,
        crop_pct=float(config["crop_pct"]),
        interpolation=config["interpolation"],
        mean=mean,
        std=std,
        crop_mode=config["crop_mode"],
        source=f"{source}, except {', '.join(given)}" if given else source,
        transform=transform,  # type: ignore[arg-type]  # declared as a union by timm
    )


def timm_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a timm data config (``timm.data.resolve_data_config``) that `build` takes."""
    same = ("crop_pct", "interpolation", "mean", "std", "crop_mode")
    return {"img_size": config["input_size"][1:], **{name: config[name] for name in same}}


def crop_fraction(crop: int, resize: int) -> float:
    """The crop_pct for which timm's ``floor(crop / crop_pct)`` is exactly ``resize``."""
    fraction = crop / resize
    while math.floor(crop / fraction) < resize:  # a rounding error would lose one pixel
        fraction = math.nextafter(fraction, 0.0)
    return fraction


def _numbers(values: Sequence[float]) -> str:
    return "/".join(f"{value:.4g}" for value in values)


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One number for each channel; a single number is repeated."""
    if len(values) not in (1, channels):
        raise InvalidArgumentError(
            f"{name} has {len(values)} numbers but the model reads {counted(channels, 'channel')}: "
            f"give 1 or {channels}"
        )
    return tuple(values) * (channels if len(values) == 1 else 1)


def _checked_channels(name: str, values: Any) -> tuple[float, ...]:
    numbers = list(values) if isinstance(values, Iterable) else [values]
    if len(numbers) not in (1, 3) or not all(map(_is_number, numbers)):
        raise InvalidArgumentError(
            Argument(name), f" must be 1 or 3 numbers, such as 0.485 0.456 0.406; got {values!r}"
        )
    if name == "std" and min(numbers) <= 0:
        raise InvalidArgumentError(Argument(name), f" must be above 0, got {values!r}")
    return tuple(float(number) for number in numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
