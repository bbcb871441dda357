"""Models named ``hf:NAME`` or ``hf:FOLDER``: the image classifiers of transformers."""

import logging
import pickle
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn

from secateurs._io.json_objects import read_object_file
from secateurs._io.text import one_line, printable
from secateurs.errors import Argument, FailureError, InvalidArgumentError, SecateursError, require
from secateurs.zoo import weights_file
from secateurs.zoo.downloads import check_folder_path, downloading, folder_named
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.preprocess import Overrides, Preprocess, build, crop_fraction

if TYPE_CHECKING:
    from PIL import Image

_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # PIL's numbers

_FOLDER = (
    "it needs config.json, preprocessor_config.json and weights, as save_pretrained writes them"
)
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def load(
    name: str, weights: str | None, num_classes: int | None, overrides: Overrides
) -> LoadedModel:
    """Load an image classifier of transformers; its output has ``.logits``.

    ``name`` is a repository of the hub (``google/vit-base-patch16-224``) or a folder. ``weights``
    is a file, ``random``, or None for the weights in the repository or folder. ``num_classes`` is
    for a file or ``random``, and as configured by default.

    Raises:
        InvalidArgumentError: no such repository or folder, or weights that do not fit.
        FailureError: transformers is not installed, or there is no network.
    """
    require("transformers", "a model of transformers", extra="hf")
    if weights is not None and weights != "random" and not weights_file.is_file(weights):
        raise InvalidArgumentError(
            f"there is no weights file {weights!r}: for hf: models give a file, random, or nothing"
        )
    folder = folder_named(name)
    if folder is not None:
        _check_folder(folder)
    source = str(folder or name)
    with _quiet(), _from_folder(name) if folder else _from_hub(name):
        from transformers import AutoImageProcessor

        model, label = _load_model(name, source, weights, num_classes)
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
        labels = {int(index): str(label) for index, label in model.config.id2label.items()}
        preprocess = _preprocess(processor, overrides)
    classes = [labels[index] for index in sorted(labels)]
    placeholders = all(label == f"LABEL_{index}" for index, label in enumerate(classes))
    return LoadedModel(
        model=model.float().eval(),
        name=f"hf:{name}",
        weights=label,
        num_classes=len(classes),
        classes=None if placeholders else classes,
        preprocess=preprocess,
    )


def _check_folder(folder: Path) -> None:
    check_folder_path(folder, "transformers")
    config, *processors = (folder / name for name in ("config.json", *_PROCESSORS))
    if not config.is_file() or not any(path.is_file() for path in processors):
        raise InvalidArgumentError(f"{folder} is no transformers folder: {_FOLDER}")
    for path in (config, *processors):
        if path.exists():
            read_object_file(path)


@contextmanager
def _quiet() -> Generator[None]:
    """No progress bars and reports on stderr; `_checked` checks the contents of the reports."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


@contextmanager
def _from_hub(name: str) -> Generator[None]:
    remedy = "without a network give a folder that save_pretrained wrote: hf:./FOLDER"
    try:
        with downloading(f"hf:{name}", remedy):
            yield
    except FailureError as error:
        if "is not a valid model identifier" not in str(error):
            raise
        raise InvalidArgumentError(
            f"the hub has no public model {name!r}; for a folder write hf:./FOLDER"
        ) from error


@contextmanager
def _from_folder(name: str) -> Generator[None]:
    try:
        with downloading(f"hf:{name}", _FOLDER, on_disk=True):
            yield
    except SecateursError:
        raise
    except Exception as error:  # transformers does not check the contents of these files
        raise FailureError(
            f"transformers cannot load {printable(name)} ({one_line(error)}): a file in "
            "it is damaged or of another version; get the folder again"
        ) from error


def _load_model(
    name: str, source: str, weights: str | None, num_classes: int | None
) -> tuple[Any, str]:
    from transformers import AutoConfig, AutoModelForImageClassification

    config: Any = AutoConfig.from_pretrained(source, trust_remote_code=False)
    _check_kind(name, config)
    if weights is None:
        weights_file.refuse_other_count(f"of hf:{name}", config.num_labels, num_classes)
        return _checked(name, AutoModelForImageClassification, source, config, None), "pretrained"
    if num_classes is not None and num_classes != config.num_labels:
        config.num_labels = num_classes
    model: Any = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    if weights == "random":
        return model, "random"
    # Through from_pretrained, since transformers renames keys between its versions.
    state = weights_file.read_weights(weights)
    return _checked(weights, type(model), None, config, state), Path(weights).name


def _check_kind(name: str, config: Any) -> None:
    from transformers import AutoModelForImageClassification

    known: Any = AutoModelForImageClassification._model_mapping  # pyright: ignore[reportPrivateUsage]
    if type(config) not in known:
        raise InvalidArgumentError(
            f"hf:{name} is a {config.model_type} model, which transformers has no image classifier "
            "for; name an image classification model"
        )


def _checked(what: str, factory: Any, source: str | None, config: Any, state: Any) -> nn.Module:
    """Load the weights, and refuse those that leave some of the model's random.

    transformers only warns of these.
    """
    try:
        model, info = factory.from_pretrained(
            source,
            config=config,
            state_dict=state,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except pickle.UnpicklingError as error:
        for file in sorted(Path(source or "").glob("*.bin")):
            weights_file.read_weights(file)  # the same refusal, with the remedy
        raise InvalidArgumentError(
            f"the weights of {what} contain code and were not loaded; name a model with "
            "model.safetensors"
        ) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise FailureError(
            f"transformers cannot load {what} ({one_line(error)}): it is damaged or of "
            "another format; get it again"
        ) from error
    # Keys beyond the classifier (a pooler, another head) are normal in a published repository.
    unexpected = sorted(info["unexpected_keys"]) if state is not None else []
    shapes = list(info["mismatched_keys"])
    missing = sorted(set(info["missing_keys"]) - {name for name, *_ in shapes})
    weights_file.refuse_misfit(model, what, missing, unexpected, shapes)
    return model


def _preprocess(processor: Any, overrides: Overrides) -> Preprocess:
    base = _values(processor)
    source = type(processor).__name__
    if overrides.given():
        if abs(float(getattr(processor, "rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
            raise InvalidArgumentError(
                f"{source} scales pixels in its own way and cannot be overridden; leave ",
                *(part for name in overrides.given() for part in (Argument(name), " ")),
                "out",
            )
        return build(base, overrides, source)
    height, _ = base.pop("img_size")
    return Preprocess(
        img_size=height, source=source, transform=partial(_pixel_values, processor), **base
    )


def _pixel_values(processor: Any, image: "Image.Image") -> Tensor:
    return processor(images=image, return_tensors="pt")["pixel_values"][0]


def _values(processor: Any) -> dict[str, Any]:
    """The values of an image processor, as timm names them."""
    normalise = getattr(processor, "do_normalize", True)
    size, crop_pct, crop_mode = _geometry(processor)
    return {
        "img_size": size,
        "crop_pct": crop_pct,
        "crop_mode": crop_mode,
        "interpolation": _RESAMPLE[int(getattr(processor, "resample", None) or 0)],
        "mean": tuple(processor.image_mean) if normalise else (0.0, 0.0, 0.0),
        "std": tuple(processor.image_std) if normalise else (1.0, 1.0, 1.0),
    }


def _geometry(processor: Any) -> tuple[tuple[int, int], float, str]:
    """The size of the input, crop_pct and crop_mode."""
    # As mappings, since newer versions of transformers have a class for sizes.
    size, crop = (dict(getattr(processor, name, None) or ()) for name in ("size", "crop_size"))
    edge = size.get("shortest_edge")
    if getattr(processor, "do_center_crop", False) and crop:
        height, width = int(crop["height"]), int(crop["width"])
        resized = int(edge or size.get("height") or height)
        mode = "center" if edge else "squash"
        return (height, width), crop_fraction(height, max(resized, height)), mode
    if edge:  # ConvNeXt: resize to edge / crop_pct, then crop; squash large inputs
        crop_pct = getattr(processor, "crop_pct", None)
        if crop_pct and edge < 384:
            return (int(edge), int(edge)), float(crop_pct), "center"
        return (int(edge), int(edge)), 1.0, "squash" if crop_pct else "center"
    height = int(size.get("height", 224))
    return (height, int(size.get("width", height))), 1.0, "squash"
