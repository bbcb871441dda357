"""Models named ``timm:NAME`` or ``timm:FOLDER``."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from secateurs._io.json_objects import read_object_file
from secateurs._io.text import one_line, printable, quoted
from secateurs._validation import nearest
from secateurs.errors import Argument, FailureError, InvalidArgumentError, require
from secateurs.zoo import weights_file
from secateurs.zoo.downloads import check_folder_path, downloading, folder_named
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.preprocess import Overrides, build, timm_values

_FOLDER_SCHEME = "local-dir:"
_LONGEST = 100  # characters; no architecture has a longer name
_FOLDER_WEIGHTS = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)


def load(
    name: str, weights: str | None, num_classes: int | None, overrides: Overrides
) -> LoadedModel:
    """Load a timm classifier by name, or from a folder with ``config.json`` and weights.

    ``name`` is as in ``timm.list_models``, with or without a tag (``resnet18.a1_in1k``), or a
    folder in timm's ``local-dir:`` layout. ``weights`` is a pretrained tag, a file, ``random``, or
    None for the default of timm or the weights in the folder. ``num_classes`` is for a file or
    ``random``, and as published by default.

    Raises:
        InvalidArgumentError: unknown name, tag or folder, or weights that do not fit.
        FailureError: no network for the download.
    """
    folder = folder_named(name)
    if folder is not None:
        _check_folder(folder)
    else:
        name = _check_name(name, weights)
    from timm.data.config import resolve_data_config

    options = _options(name, folder, num_classes, overrides)
    if weights == "random":
        model, label = _create(name, folder, pretrained=False, **options), "random"
    elif weights_file.is_file(weights):
        model, label = _create(name, folder, pretrained=False, **options), Path(weights).name
        _fit(model, weights)
    else:
        model = _pretrained(name, folder, weights, options)
        tag = _config(model).get("tag") or "pretrained"
        label = _folder_weights(folder).name if folder else tag
    classes = _config(model).get("label_names")
    count = int(getattr(model, "num_classes", 0)) or None
    return LoadedModel(
        model=model.eval(),
        name=f"timm:{name}",
        weights=label,
        num_classes=count,
        classes=list(classes) if classes and len(classes) == count else None,
        preprocess=build(
            timm_values(resolve_data_config(model=model)), overrides, "timm data config"
        ),
    )


def _check_folder(folder: Path) -> None:
    check_folder_path(folder, "timm")
    if not (folder / "config.json").is_file():
        raise InvalidArgumentError(
            f"{folder} is no timm folder: it needs config.json and model.safetensors, as "
            "timm.models.save_for_hf writes them"
        )
    config = read_object_file(folder / "config.json")
    if not isinstance(config.get("architecture"), str):
        raise InvalidArgumentError(
            f"{folder / 'config.json'} names no timm architecture; for a folder of transformers "
            f"write hf:{folder}"
        )
    _check_name(config["architecture"], None)


def _check_name(name: str, weights: str | None) -> str:
    """Check the name and return it with the pretrained tag that ``weights`` asks for."""
    require("timm", "a model of timm")
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        similar = nearest(architecture[:_LONGEST], timm.list_models())
        raise InvalidArgumentError(f"timm has no model {quoted(name)}{similar}")
    if weights is not None and weights != "random" and not weights_file.is_file(weights):
        tag = weights
    if not tag:
        return architecture
    tags = [
        known.partition(".")[2]
        for known in timm.list_pretrained(f"{architecture}.*")
        if known.partition(".")[0] == architecture
    ]
    if tag not in tags:
        raise InvalidArgumentError(
            f"timm:{architecture} has no pretrained weights {tag!r}: choose from "
            f"{', '.join([*tags, 'random'])}, or give a {', '.join(weights_file.SUFFIXES)} file"
        )
    return f"{architecture}.{tag}"


def _options(
    name: str, folder: Path | None, num_classes: int | None, overrides: Overrides
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if overrides.img_size is not None and folder is None:
        import timm

        published = timm.get_pretrained_cfg(name)
        if published is not None and published.fixed_input_size:
            options["img_size"] = overrides.img_size  # position embeddings depend on it
    return options


def _create(name: str, folder: Path | None, *, pretrained: bool, **options: Any) -> nn.Module:
    import timm

    if folder is None:
        return timm.create_model(name, pretrained=pretrained, **options)
    try:
        return timm.create_model(f"{_FOLDER_SCHEME}{folder}", pretrained=pretrained, **options)
    except Exception as error:  # timm does not check the contents of config.json
        raise FailureError(
            f"timm cannot load {printable(str(folder))} ({one_line(error)}): its "
            "config.json is damaged or of another version; get the folder again"
        ) from error


def _pretrained(
    name: str, folder: Path | None, tag: str | None, options: dict[str, Any]
) -> nn.Module:
    num_classes = options.pop("num_classes", None)
    if folder is not None:
        if tag is not None:
            raise InvalidArgumentError(
                f"a folder has no weights {tag!r}: leave weights out, or give a file or random"
            )
        model = _from_folder(name, folder, options)
    else:
        model = _download(name, options)
    own = getattr(model, "num_classes", None)
    weights_file.refuse_other_count(f"of timm:{name}", own, num_classes)
    return model


def _download(name: str, options: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.models.is_model_pretrained(name):
        raise InvalidArgumentError(
            f"timm publishes no weights for {name}: give ",
            Argument("weights", "FILE"), " or ", Argument("weights", "random"),
        )  # fmt: skip
    remedy = ("without a network give a file that you have: ", Argument("weights", "FILE"))
    with downloading(f"the weights of timm:{name}", *remedy):
        return _create(name, None, pretrained=True, **options)


def _from_folder(name: str, folder: Path, options: dict[str, Any]) -> nn.Module:
    file = _folder_weights(folder)
    try:
        return _create(name, folder, pretrained=True, **options)
    except FailureError:
        # Our own functions raise an error of one line for the same defect.
        _fit(_create(name, folder, pretrained=False, **options), str(file))
        raise


def _folder_weights(folder: Path) -> Path:
    for name in _FOLDER_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InvalidArgumentError(
        f"{folder} holds no weights: put model.safetensors beside config.json"
    )


def _fit(model: nn.Module, file: str) -> None:
    weights_file.fit_weights(
        model, weights_file.read_weights(file), file, rename=_translator(model)
    )


def _translator(model: nn.Module) -> Callable[[weights_file.State], weights_file.State] | None:
    """A function that renames the keys of original authors; most modules of timm have one."""
    module = sys.modules[type(model).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None)
    if translate is None:
        return None

    def rename(state: weights_file.State) -> weights_file.State:
        try:
            return dict(translate(dict(state), model))
        except (KeyError, RuntimeError, TypeError, AttributeError, ValueError):
            return state  # keys of another model, which `fit_weights` then lists

    return rename


def _config(model: nn.Module) -> dict[str, Any]:
    return getattr(model, "pretrained_cfg", None) or {}
