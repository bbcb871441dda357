"""Models named ``torchvision:NAME``: the classifiers of torchvision."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from secateurs._validation import nearest
from secateurs.errors import Argument, InvalidArgumentError, require
from secateurs.zoo import weights_file
from secateurs.zoo.downloads import downloading
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.preprocess import Overrides, Preprocess, build, crop_fraction

DEFAULT_WEIGHTS = "IMAGENET1K_V1"  # published tables use the first version
_OLD_DENSENET_KEY = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load(
    name: str, weights: str | None, num_classes: int | None, overrides: Overrides
) -> LoadedModel:
    """Load the classifier ``name`` of ``torchvision.models.list_models``.

    ``weights`` is a member of the model's weights enum, a file, ``random``, or None for
    `DEFAULT_WEIGHTS`. ``num_classes`` is for a file or ``random``, and as published by default.

    Raises:
        InvalidArgumentError: unknown name or weights, or a file that does not fit.
        FailureError: no network for the download.
    """
    _check_name(name)
    from torchvision.models import get_model_weights

    entries: Any = get_model_weights(name)
    # For a file and for random weights, the preprocessing is that of published ones.
    entry = entries.__members__.get(DEFAULT_WEIGHTS) or next(iter(entries))
    if weights == "random":
        model, label = _build(name, num_classes), "random"
    elif weights_file.is_file(weights):
        model, label = _from_file(name, weights, num_classes), Path(weights).name
    else:
        entry = _published(name, entries, weights)
        weights_file.refuse_other_count(entry.name, len(entry.meta["categories"]), num_classes)
        model, label = _download(name, entry), entry.name
    known = entry.meta.get("categories")
    count = num_classes or (len(known) if known else None)
    return LoadedModel(
        model=model,
        name=f"torchvision:{name}",
        weights=label,
        num_classes=count,
        classes=known if known and count == len(known) else None,
        preprocess=_preprocess(entry, overrides),
    )


def _check_name(name: str) -> None:
    require("torchvision", "a model of torchvision")
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name in known:
        return
    elsewhere = f"; timm has it: timm:{name}" if _is_of_timm(name) else ""
    raise InvalidArgumentError(
        f"torchvision has no classifier {name!r}{elsewhere or nearest(name, known)}"
    )


def _is_of_timm(name: str) -> bool:
    if find_spec("timm") is None:
        return False
    import timm

    return timm.is_model(name.partition(".")[0])


def _published(name: str, entries: Any, weights: str | None) -> Any:
    """The entry of published weights in the model's enum."""
    members = list(entries.__members__)
    if weights is None and DEFAULT_WEIGHTS not in members:
        raise InvalidArgumentError(
            f"torchvision:{name} has no weights {DEFAULT_WEIGHTS}: choose weights from "
            f"{', '.join(members)}, or give a file"
        )
    if weights is not None and weights not in members:
        raise InvalidArgumentError(
            f"torchvision:{name} has no weights {weights!r} and there is no such file: choose "
            f"from {', '.join(members)}, random, or give a {', '.join(weights_file.SUFFIXES)} file"
            + nearest(weights, [*members, "random"])
        )
    return entries[weights or DEFAULT_WEIGHTS]


def _download(name: str, entry: Any) -> nn.Module:
    from torchvision.models import get_model

    remedy = ("without a network give a file that you have: ", Argument("weights", "FILE"))
    with downloading(f"the weights {entry.name} of torchvision:{name}", *remedy):
        return get_model(name, weights=entry, progress=sys.stderr.isatty()).eval()


def _from_file(name: str, file: str, num_classes: int | None) -> nn.Module:
    state = weights_file.read_weights(file)
    options: dict[str, Any] = {}
    if name == "inception_v3":
        options = {"aux_logits": _has(state, "AuxLogits."), "transform_input": True}
    elif name == "googlenet":
        options = {"aux_logits": _has(state, "aux1."), "transform_input": True}
    model = _build(name, num_classes, **options)
    rename = _modern_densenet_keys if name.startswith("densenet") else None
    weights_file.fit_weights(model, state, file, rename=rename)
    if name == "googlenet":  # as torchvision does: no auxiliary heads after loading
        for part, value in (("aux_logits", False), ("aux1", None), ("aux2", None)):
            setattr(model, part, value)
    return model


def _build(name: str, num_classes: int | None, **options: Any) -> nn.Module:
    from torchvision.models import get_model

    if num_classes is not None:
        options["num_classes"] = num_classes
    if name in ("inception_v3", "googlenet"):
        options.setdefault("init_weights", True)  # unset, torchvision warns
    return get_model(name, weights=None, **options).eval()


def _has(state: weights_file.State, prefix: str) -> bool:
    return any(key.removeprefix("module.").startswith(prefix) for key in state)


def _modern_densenet_keys(state: weights_file.State) -> weights_file.State:
    """The published DenseNet files say ``norm.1`` where the module says ``norm1``."""
    return {_OLD_DENSENET_KEY.sub(r"\1\2", key): value for key, value in state.items()}


def _preprocess(entry: Any, overrides: Overrides) -> Preprocess:
    transform = entry.transforms()
    crop, resize = transform.crop_size[0], transform.resize_size[0]
    base: dict[str, Any] = {
        "img_size": crop,
        "crop_pct": crop_fraction(crop, resize),
        "interpolation": transform.interpolation.value,
        "mean": tuple(transform.mean),
        "std": tuple(transform.std),
    }
    source = f"torchvision {entry}"
    if overrides.given():
        return build(base, overrides, source)
    return Preprocess(source=source, transform=transform, **base)
