"""Read the weights of a file without running code, and fit them to a model or say why not."""

import argparse
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file
from torch import Tensor, nn

from secateurs._files import read_regular
from secateurs._text import storable
from secateurs.errors import FailureError, InvalidArgumentError

SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
# The order in which timm looks for the weights inside a training checkpoint.
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
# What torch.load(weights_only=True) says when a pickle would import or call something.
_REFUSED = ("GLOBAL", "unsupported class", "unrecognized function")
_SHOWN = 4

State = dict[str, Tensor]


def is_file(weights: str | None) -> bool:
    """Whether ``weights`` names a file rather than a published set of weights."""
    if weights is None:
        return False
    path = Path(weights).expanduser()
    return path.suffix.lower() in SUFFIXES or len(path.parts) > 1 or path.is_file()


def read_weights(file: str | Path) -> State:
    """Read a state dict; never unpickles code.

    A checkpoint that nests the weights under ``state_dict_ema``, ``model_ema``, ``state_dict`` or
    ``model`` (in this order, as timm does) is unpacked.

    Args:
        file: ``.safetensors``, or any file that ``torch.save`` wrote.

    Returns:
        Tensors on the CPU by name.

    Raises:
        InvalidArgumentError: there is no such file, it holds code, or it holds no weights.
        FailureError: the file cannot be read, for instance because it is cut short.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InvalidArgumentError(
            f"no weights file {path}; give a {', '.join(SUFFIXES)} file, or the name of weights"
        )
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _unpack(path, loaded)


def fit_weights(
    model: nn.Module,
    state: State,
    file: str | Path,
    *,
    rename: Callable[[State], State] | None = None,
) -> None:
    """Load ``state`` into ``model``, every key, in place.

    Prefixes that DataParallel and ``torch.compile`` add are removed. ``num_batches_tracked`` may
    be missing: checkpoints from before PyTorch 0.4.1 lack it.

    Args:
        model: the network that receives the weights.
        state: what `read_weights` returned.
        file: only for the error.
        rename: translates the keys of older checkpoints, tried when the keys do not fit.

    Raises:
        InvalidArgumentError: keys are missing, unexpected or of the wrong shape; the first few are
            listed.
    """
    state = _unwrap(model, state)
    if rename is not None and state.keys() != model.state_dict().keys():
        state = rename(state)
    own = model.state_dict()
    wrong = [key for key in state if key in own and own[key].shape != state[key].shape]
    rest = {key: value for key, value in state.items() if key not in wrong}
    try:
        # Loaded before the check, since modules may translate old keys while they load.
        result = model.load_state_dict(rest, strict=False)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"the weights in {file} do not fit {type(model).__name__}: {one_line(error)}"
        ) from error
    missing = [
        key
        for key in result.missing_keys
        if key not in wrong and not key.endswith("num_batches_tracked")
    ]
    shapes = [f"{key} {_shape(state[key])} instead of {_shape(own[key])}" for key in wrong]
    refuse_misfit(type(model).__name__, file, missing, list(result.unexpected_keys), shapes)


def refuse_misfit(
    model: str, file: str | Path, missing: list[str], unexpected: list[str], shapes: list[str]
) -> None:
    """Raise if any of the lists has an entry.

    Raises:
        InvalidArgumentError: one line with each count and the first few names.
    """
    parts = [
        f"{len(keys)} {label} ({_first(keys)})"
        for label, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if keys
    ]
    if parts:
        only_shapes = bool(shapes) and not missing and not unexpected
        remedy = (
            "set num_classes if it was trained for other classes"
            if only_shapes
            else "name the architecture that the file was saved from"
        )
        raise InvalidArgumentError(
            f"the weights in {file} do not fit {model}: {', '.join(parts)}; {remedy}"
        )


def one_line(error: BaseException) -> str:
    """The first line of an error's message that says something, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _read_safetensors(path: Path) -> State:
    try:
        # The library opens paths in UTF-8 alone; any other file is read as a whole.
        return load_file(path) if storable(str(path)) == str(path) else load(read_regular(path))
    except (SafetensorError, OSError) as error:
        raise FailureError(
            f"cannot read {path} as safetensors ({one_line(error)}): it is damaged or of another "
            "format; get the file again"
        ) from error


def _read_pickle(path: Path) -> object:
    try:
        # timm's training checkpoints carry their command line as a Namespace: data, not code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # TorchScript archives are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(words in str(error) for words in _REFUSED):
            raise InvalidArgumentError(
                f"{path} contains code{_names_of_code(path)}, not only weights, and was not "
                "loaded; save model.state_dict() as safetensors where you trust the file, then "
                "give that"
            ) from error
        raise _unreadable(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        if "TorchScript" in str(error):
            raise InvalidArgumentError(
                f"{path} is a TorchScript archive, which contains code, and was not loaded; save "
                "model.state_dict() as safetensors, then give that"
            ) from error
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> FailureError:
    return FailureError(
        f"cannot read {path} as a PyTorch checkpoint ({one_line(error)}): it is damaged or of "
        "another format; get the file again"
    )


def _names_of_code(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (ValueError, RuntimeError, pickle.UnpicklingError):
        return ""  # the old, non-zip format cannot be listed
    return f" ({_first(sorted(names))})" if names else ""


def _unpack(path: Path, loaded: object) -> State:
    mapping: Any = loaded
    for key in _NESTED:
        if isinstance(mapping, Mapping) and isinstance(mapping.get(key), Mapping):
            mapping = mapping[key]
            break
    if not isinstance(mapping, Mapping):
        raise InvalidArgumentError(
            f"{path} holds a {type(loaded).__name__}, not weights by name; save model.state_dict()"
        )
    tensors = {str(key): value for key, value in mapping.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InvalidArgumentError(
            f"{path} holds no weights, only {_first([str(key) for key in mapping]) or 'nothing'}; "
            f"weights are looked for at the top and under {', '.join(_NESTED)}"
        )
    return tensors


def _unwrap(model: nn.Module, state: State) -> State:
    own = tuple(model.state_dict())
    again = True
    while again:
        again = False
        for prefix in _WRAPPERS:
            if all(key.startswith(prefix) for key in state) and not any(
                key.startswith(prefix) for key in own
            ):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                again = True
    return state


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"
