"""Models named ``package.module:function``: the module that the caller's own function returns."""

import importlib
import inspect
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from secateurs._io.text import one_line
from secateurs._validation import nearest
from secateurs.errors import Argument, FailureError, InvalidArgumentError, SecateursError
from secateurs.zoo import weights_file
from secateurs.zoo.loaded_model import LoadedModel
from secateurs.zoo.preprocess import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Overrides,
    Preprocess,
    build,
    timm_values,
)

_FORMS = "a model is named torchvision:NAME, timm:NAME, hf:NAME or package.module:function"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def load(
    spec: str, weights: str | None, num_classes: int | None, overrides: Overrides
) -> LoadedModel:
    """Import ``package.module:function``, also from the current folder, and see `load_from`.

    Raises:
        InvalidArgumentError: no such module or function.
        FailureError: importing it raised an error.
    """
    return load_from(_find(spec), spec, weights, num_classes, overrides)


def load_from(
    function: Callable[..., Any],
    spec: str,
    weights: str | None,
    num_classes: int | None,
    overrides: Overrides,
) -> LoadedModel:
    """Call a function without arguments, and take the module that it returns.

    The module may have these attributes: ``num_classes`` (int), ``classes`` (names), and
    ``preprocess``, which is a `Preprocess`, or a dict with any of img_size, crop_pct,
    interpolation, mean, std, crop_mode; or a ``pretrained_cfg`` as in timm. A model without them
    gets the usual ImageNet preprocessing. A function with a parameter ``pretrained`` is called
    with ``pretrained=False`` if ``weights`` is given.

    Args:
        function: makes the module.
        spec: what errors and the loaded model call it.
        weights: a file, ``random`` (only if the function has a parameter ``pretrained``), or None
            for the module as the function returns it.
        num_classes: passed to the function if it has such a parameter; otherwise taken as the
            number of logits.
        overrides: changes to the preprocessing.

    Raises:
        InvalidArgumentError: the function needs arguments, returns no module, or returns one of
            another number of classes.
        FailureError: calling it raised an error.
    """
    parameters = _parameters(spec, function)
    options: dict[str, Any] = {}
    if weights is not None and "pretrained" in parameters:
        options["pretrained"] = False
    if num_classes is not None and "num_classes" in parameters:
        options["num_classes"] = num_classes
    _check_weights(spec, weights, parameters)
    model = _call(spec, function, options)
    label = str(getattr(model, "weights_name", "as built")) if weights is None else weights
    if weights is not None and weights != "random":
        weights_file.fit_weights(model, weights_file.read_weights(weights), weights)
        label = Path(weights).name
    classes = getattr(model, "classes", None)
    own = getattr(model, "num_classes", None)
    count = own if isinstance(own, int) else num_classes or (len(classes) if classes else None)
    if num_classes not in (None, count):
        raise InvalidArgumentError(
            f"{spec} has {count} classes, not {num_classes}: leave ",
            Argument("num_classes"), " out",
        )  # fmt: skip
    return LoadedModel(
        model=model.eval(),
        name=spec,
        weights=label,
        num_classes=count,
        classes=list(classes) if classes and len(classes) == count else None,
        preprocess=_preprocess(model, spec, overrides),
    )


def has_pretrained(spec: str) -> bool:
    """Whether ``package.module:function`` can be asked for a network that is not trained.

    Raises:
        InvalidArgumentError: no such module or function, or it needs arguments.
        FailureError: importing it raised an error.
    """
    return "pretrained" in _parameters(spec, _find(spec))


def _find(spec: str) -> Callable[..., Any]:
    module_name, _, function_name = spec.partition(":")
    if not module_name or not function_name:
        raise InvalidArgumentError(f"{spec!r} names no model: {_FORMS}")
    module = _import(spec, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value)]
        raise InvalidArgumentError(
            f"module {module_name} has no function {function_name!r}{nearest(function_name, names)}"
        )
    return function


def _import(spec: str, module_name: str) -> Any:
    try:
        with _current_folder():
            return importlib.import_module(module_name)
    except SyntaxError as error:
        raise FailureError(
            f"importing {module_name} failed (SyntaxError in {error.filename}, line "
            f"{error.lineno}: {error.msg}); mend the module"
        ) from error
    except Exception as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and (module_name == absent or module_name.startswith(f"{absent}.")):
            raise InvalidArgumentError(
                f"{spec!r} names no model: there is no module {absent!r}; {_FORMS}"
            ) from error
        if isinstance(error, ValueError | TypeError) and not module_name.replace(".", "").isalnum():
            raise InvalidArgumentError(f"{spec!r} names no model: {_FORMS}") from error
        raise FailureError(
            f"importing {module_name} failed ({type(error).__name__}: "
            f"{one_line(error)}); mend the module or install what it needs"
        ) from error


@contextmanager
def _current_folder() -> Generator[None]:
    """Search the current folder for modules too, which a console script does not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _parameters(spec: str, function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return {}
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind not in optional
    ]
    if needed:
        raise InvalidArgumentError(
            f"{spec} needs arguments ({', '.join(needed)}), but it is called without any: give "
            "them defaults, or write a small function that calls it"
        )
    return parameters


def _check_weights(spec: str, weights: str | None, parameters: Mapping[str, Any]) -> None:
    if weights is None or weights_file.is_file(weights):
        return
    if weights != "random":
        raise InvalidArgumentError(
            f"there is no weights file {weights!r}: for {spec} give a file, or nothing"
        )
    if "pretrained" not in parameters:
        raise InvalidArgumentError(
            Argument("weights", "random"), f" is unknown to {spec}, whose weights are what it "
            "returns: leave ", Argument("weights"),
            " out, or give the function a parameter pretrained",
        )  # fmt: skip


def _call(spec: str, function: Callable[..., Any], options: dict[str, Any]) -> nn.Module:
    try:
        model = function(**options)
    except SecateursError:
        raise
    except Exception as error:
        raise FailureError(
            f"{spec} raised {type(error).__name__}: {one_line(error)}; mend the function"
        ) from error
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(
            f"{spec} returned a {type(model).__name__}, not a torch.nn.Module"
        )
    return model


def _preprocess(model: nn.Module, spec: str, overrides: Overrides) -> Preprocess:
    own = getattr(model, "preprocess", None)
    if isinstance(own, Preprocess):
        if not overrides.given():
            return own
        base = {name: getattr(own, name) for name in Overrides.__dataclass_fields__}
        return build(base, overrides, own.source)
    base, source = _usual(model)
    if isinstance(own, Mapping):
        base, source = base | Overrides(**_known(spec, own)).given(), "the model"
    return build(base, overrides, source)


def _known(spec: str, own: Mapping[str, Any]) -> dict[str, Any]:
    fields = Overrides.__dataclass_fields__
    for name in own:
        if name not in fields:
            raise InvalidArgumentError(
                f"{spec}: the model's preprocess has an unknown entry {name!r}"
                f"{nearest(str(name), fields)}; known are {', '.join(fields)}"
            )
    return dict(own)


def _usual(model: nn.Module) -> tuple[dict[str, Any], str]:
    """The preprocessing of a model that does not say it, and where it comes from."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if config:
        from timm.data.config import resolve_data_config

        return timm_values(resolve_data_config(pretrained_cfg=dict(config))), "timm data config"
    first = next((each for each in model.modules() if isinstance(each, _CONVOLUTIONS)), None)
    grey = first is not None and first.in_channels == 1
    values = {
        "img_size": 224,
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": (0.5,) if grey else IMAGENET_MEAN,
        "std": (0.5,) if grey else IMAGENET_STD,
    }
    return values, "ImageNet defaults"
