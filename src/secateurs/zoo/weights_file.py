"""Read the weights of a file without running code, and fit them to a model or say why not."""

import argparse
import mmap
import pickle
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors.torch import load, load_file
from torch import Tensor, nn

from secateurs._io.regular_files import read_regular, reading, remedy_for
from secateurs._io.text import listed, one_line, shortened, storable
from secateurs.errors import Advice, Argument, FailureError, InvalidArgumentError
from secateurs.torch_prune.pruned_state_dict import multiplied
from secateurs.zoo.archive import ArchiveRecord, check_checksums, damaged, is_archive, read_records
from secateurs.zoo.state_dicts import find_state
from secateurs.zoo.suffixes import CHECKPOINTS, COMPRESSED, SUFFIXES, is_safetensors, suffix_of

# The names under which timm searches for the weights in a training checkpoint, in its order.
AVERAGED_FIRST = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
# Words of torch.load(weights_only=True) for a pickle that would import or call something.
_REFUSED = ("GLOBAL", "unsupported class", "unrecognized function")
# The first words of the advice in torch's messages.
_ADVICE = (" This is an internal miniz error", " Please file an issue", " Check the documentation")
_BYTEARRAY = b"\nbytearray\n"
_SHOWN = 4

State = dict[str, Tensor]


def is_file(weights: str | None) -> TypeGuard[str]:
    """Whether ``weights`` names a file rather than a published set of weights."""
    if weights is None:
        return False
    path = Path(weights).expanduser()
    return suffix_of(path) in CHECKPOINTS or len(path.parts) > 1 or path.is_file()


def read_weights(
    file: str | Path, *, key: str | None = None, order: Sequence[str] = AVERAGED_FIRST
) -> State:
    """Read a state dict; never unpickles code.

    In a training checkpoint the weights are found by its structure, under any name
    (`secateurs.zoo.state_dicts.find_state`). Of the two sets in timm's own checkpoints, the
    averaged weights are taken, as timm does.

    Args:
        file: ``.safetensors``, or any file that ``torch.save`` wrote.
        key: the name of the weights, if it holds several sets.
        order: as for `secateurs.zoo.state_dicts.find_state`.

    Returns:
        Tensors on the CPU by name.

    Raises:
        InvalidArgumentError: there is no such file, it holds code, no weights, or several sets.
        FailureError: the file cannot be read, for instance because it is cut short.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise InvalidArgumentError(
            f"no weights file {path}; give a {', '.join(SUFFIXES)} file, or the name of weights"
        )
    if suffix_of(path) == COMPRESSED:
        raise InvalidArgumentError(
            f"{path} is compressed: write it as an ordinary file first, with zstd -d or secateurs "
            "prune --decompress"
        )
    with reading(path):
        stored_as_safetensors = is_safetensors(path)
    if stored_as_safetensors:
        return _read_safetensors(path)
    records = read_records(path) if is_archive(path) else None
    check_checksums(path, records or ())
    remedy = (
        Advice("save one alone, with ", "save one alone, in Python with "),
        "safetensors.torch.save_file(secateurs.load_checkpoint(FILE, key=NAME), OUT)",
    )
    return find_state(path, read_pickle(path, records), key=key, order=order, remedy=remedy)


def fit_weights(
    model: nn.Module,
    state: State,
    file: str | Path,
    *,
    rename: Callable[[State], State] | None = None,
) -> None:
    """Load ``state`` into ``model``, every key, in place.

    Prefixes that DataParallel and ``torch.compile`` add are removed. What ``torch.nn.utils.prune``
    calls ``NAME_orig`` and ``NAME_mask`` is multiplied into NAME. ``num_batches_tracked`` may
    be missing: checkpoints from before PyTorch 0.4.1 lack it. ``rename`` translates the keys of
    older checkpoints; it is tried when the keys do not fit. ``file`` is for errors only.

    Raises:
        InvalidArgumentError: keys are missing, unexpected or of the wrong shape; the first few are
            listed.
    """
    state = _unwrap(model, state)
    if not state.keys() <= model.state_dict().keys():
        state = multiplied(state)
    if rename is not None and state.keys() != model.state_dict().keys():
        state = rename(state)
    own = model.state_dict()
    wrong = [key for key in state if key in own and own[key].shape != state[key].shape]
    rest = {key: value for key, value in state.items() if key not in wrong}
    try:
        # The keys are checked after loading, since modules may rename old keys while they load.
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
    shapes = [(key, state[key].shape, own[key].shape) for key in wrong]
    refuse_misfit(model, file, missing, result.unexpected_keys, shapes)


def refuse_misfit(
    model: nn.Module,
    file: str | Path,
    missing: Collection[str],
    unexpected: Collection[str],
    shapes: Iterable[tuple[str, Sequence[int], Sequence[int]]],
) -> None:
    """Raise an error if any of these has an entry.

    Args:
        model: the model that the weights do not fit.
        file: where they are from.
        missing: keys of the model that are not there.
        unexpected: keys that the model does not have.
        shapes: keys with the shape that is there and the one that the model has.
    """
    other = [f"{key} {_shape(there)} instead of {_shape(own)}" for key, there, own in shapes]
    labelled = {"missing": missing, "unexpected": unexpected, "of another shape": other}
    parts = [
        f"{len(keys)} {label} ({listed(keys, _SHOWN)})" for label, keys in labelled.items() if keys
    ]
    if parts:
        remedy = (
            "name the architecture that the file was saved from"
            if missing or unexpected
            else "set num_classes if it was trained for other classes"
        )
        raise InvalidArgumentError(
            f"the weights in {file} do not fit {type(model).__name__}: {', '.join(parts)}; {remedy}"
        )


def refuse_other_count(weights: str, count: int | None, wanted: int | None) -> None:
    """Refuse another number of classes than that of published weights."""
    if wanted not in (None, count):
        raise InvalidArgumentError(
            f"the weights {weights} have {count} classes, not {wanted}: leave ",
            Argument("num_classes"),
            " out, or give a weights file of that many classes",
        )


def read_pickle(path: Path, records: Sequence[ArchiveRecord] | None) -> object:
    """Load a file of ``torch.save`` on the CPU; never unpickles code.

    ``records`` are those of the archive; None for the older format, which is no archive.

    Raises:
        InvalidArgumentError: it holds code.
        FailureError: it is damaged.
    """
    _refuse_bytearrays(path, records)
    try:
        # timm's training checkpoints carry their command line as a Namespace: data, not code.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch does not document what damaged bytes raise
        text = str(error)
        if isinstance(error, pickle.UnpicklingError) and any(word in text for word in _REFUSED):
            raise InvalidArgumentError(
                f"{path} contains code{_names_of_code(path)}, not only weights, and was not "
                "loaded; save model.state_dict() as safetensors where you trust the file, then "
                "give that"
            ) from error
        raise damaged(path, _reason(error)) from error


def _refuse_bytearrays(path: Path, records: Sequence[ArchiveRecord] | None) -> None:
    """Refuse the one call that torch allows in a pickle and that can fill any memory."""
    with reading(path), path.open("rb") as file:
        if not file.seek(0, 2):
            return  # an empty file cannot be mapped
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            ranges = [(0, len(content))]
            if records is not None:
                ranges = [(r.start, r.stop) for r in records if r.name.endswith(".pkl")]
            found = any(content.find(_BYTEARRAY, *offsets) >= 0 for offsets in ranges)
    if found:
        raise InvalidArgumentError(
            f"{path} holds a bytearray, of which a small file can make any number of gigabytes, "
            "and was not loaded; save model.state_dict() alone"
        )


def _read_safetensors(path: Path) -> State:
    try:
        # The library opens only paths in UTF-8; for others the whole file is read first.
        return load_file(path) if storable(str(path)) == str(path) else load(read_regular(path))
    except Exception as error:  # safetensors does not document what damaged bytes raise
        raise FailureError(
            f"cannot read {path} as safetensors ({shortened(one_line(error))}): {remedy_for(path)}"
        ) from error


def _reason(error: Exception) -> str:
    """The first line of torch's message, without its advice to load the file in less safe ways."""
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        _, found, text = str(error).partition("WeightsUnpickler error:")
        lines = text.strip().splitlines()
        return lines[0] if found and lines else "it is no pickle of weights"
    line = one_line(error) if str(error) else "it ends too early or says too little"
    for advice in _ADVICE:
        line = line.partition(advice)[0]
    return line


def _names_of_code(path: Path) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:
        return ""  # for the old format, which is no archive, torch cannot list them
    return f" ({shortened(listed(sorted(names), _SHOWN))})" if names else ""


def _unwrap(model: nn.Module, state: State) -> State:
    own = tuple(model.state_dict())
    added = [p for p in _WRAPPERS if not any(key.startswith(p) for key in own)]
    while state:
        prefix = next((p for p in added if all(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _shape(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
