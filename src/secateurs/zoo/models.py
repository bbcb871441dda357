"""Load any model by its name."""

from collections.abc import Sequence
from pathlib import Path

from secateurs._validation import check_count
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.zoo import from_function, from_hf, from_timm, from_torchvision
from secateurs.zoo.digits import digits_cnn
from secateurs.zoo.digits_family import FAMILY
from secateurs.zoo.loaded_model import LoadedModel, check_size
from secateurs.zoo.preprocess import Overrides
from secateurs.zoo.small_networks import SMALL_NETWORKS
from secateurs.zoo.weights_file import is_file

_DIGITS = {"digits": digits_cnn, "digits-cnn": digits_cnn, **FAMILY}
DIGITS_NAMES = tuple(_DIGITS)
_OWN = _DIGITS | SMALL_NETWORKS
_SOURCES = {"torchvision": from_torchvision.load, "timm": from_timm.load, "hf": from_hf.load}


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    crop_pct: float | None = None,
    interpolation: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    crop_mode: str | None = None,
) -> LoadedModel:
    """Load a classifier by name, with its own preprocessing.

    Args:
        spec: ``torchvision:NAME`` or just ``NAME``; ``timm:NAME``; ``hf:NAME``; ``timm:FOLDER``
            (timm's ``local-dir:`` layout) and ``hf:FOLDER`` (written by ``save_pretrained``);
            ``package.module:function``, called without arguments; ``digits``, a small network
            that is trained on first use, or one of digits-plain, digits-wide, digits-residual,
            digits-patches, see `secateurs.zoo.digits_family`; ``lenet300``, ``lenet5`` or
            ``mlpnet`` for MNIST, ``resnet20`` for CIFAR-10, which have no published weights.
        weights: None for the usual ones (torchvision: ``IMAGENET1K_V1``), the name of published
            ones (``IMAGENET1K_V2``, ``DEFAULT``, a timm tag), a file (``.safetensors``, or one of
            ``torch.save``, read without running code), or ``random`` for an untrained model,
            drawn from the global generator: seed it with ``torch.manual_seed``. With a file or
            ``random`` nothing is downloaded; for an ``hf:`` name only the configuration is.
        num_classes: the number of logits, for a file or ``random``; default as published.
        img_size: input height and width in pixels.
        crop_pct: input size divided by resized size, above 0, at most 1.
        interpolation: nearest, bilinear, bicubic, lanczos, box or hamming.
        mean: 1 number or one per channel, for pixels in [0, 1].
        std: 1 number or one per channel, for pixels in [0, 1].
        crop_mode: center, squash or border, as timm names them.

    Returns:
        The model in eval mode on the CPU, with its classes and its own preprocessing: the
        transforms of the torchvision weights (for a file: of ``IMAGENET1K_V1``), timm's data
        config, or the processor of transformers. If a value is overridden, it is timm's evaluation
        transform with the other values unchanged.

    Raises:
        InvalidArgumentError: an unknown name, a checkpoint that does not fit or holds code, a
            value out of range, or an ``img_size`` that the network does not take.
        FailureError: no network for a download, a package that is not installed, or a damaged file.

    Example:
        >>> loaded = load_model("torchvision:squeezenet1_1", weights="random")
        >>> loaded.num_classes, loaded.preprocess.img_size
        (1000, 224)
    """
    if not isinstance(spec, str) or not spec.strip():
        raise InvalidArgumentError(f"a model is named by text such as resnet18; got {spec!r}")
    classes = None if num_classes is None else check_count("num_classes", num_classes)
    overrides = Overrides(img_size, crop_pct, interpolation, mean, std, crop_mode)
    chosen = str(weights) if weights is not None else None
    if isinstance(weights, Path) and not is_file(chosen):
        raise InvalidArgumentError(f"no weights file {weights}")
    loaded = _load(spec.strip(), chosen, classes, overrides)
    if img_size is not None:
        check_size(loaded)
    return loaded


def untrained_weights(spec: str) -> str | None:
    """The ``weights`` with which `load_model` returns a network that is to be trained from scratch.

    Args:
        spec: as in `load_model`.

    Returns:
        ``"random"``; None for a function of the caller's own that has no parameter ``pretrained``,
        and whose module is taken as it returns it.

    Raises:
        InvalidArgumentError: no such module or function.
        FailureError: importing it raised an error.
    """
    source, colon, _ = spec.strip().partition(":")
    if not colon or source in _SOURCES or from_function.has_pretrained(spec.strip()):
        return "random"
    return None


def digits_model() -> LoadedModel:
    """``load_model("digits")``: the trained digits network with its preprocessing."""
    return load_model("digits")


def _load(name: str, chosen: str | None, classes: int | None, overrides: Overrides) -> LoadedModel:
    if name in SMALL_NETWORKS and chosen is None:
        raise InvalidArgumentError(
            f"{name} has no published weights: give a file (`secateurs retrain` writes one) as ",
            *(Argument("weights"), ", or ", Argument("weights", "random")),
        )
    if name in _OWN:
        name = "digits-cnn" if name == "digits" else name
        return from_function.load_from(_OWN[name], name, chosen, classes, overrides)
    source, colon, rest = name.partition(":")
    if not colon and is_file(name):
        raise InvalidArgumentError(
            f"{name!r} is a file, and no network: name the network, such as resnet18, and give the "
            "file as ",
            Argument("weights"),
        )
    if not colon:
        return from_torchvision.load(name, chosen, classes, overrides)
    if source in _SOURCES:
        return _SOURCES[source](rest, chosen, classes, overrides)
    return from_function.load(name, chosen, classes, overrides)
