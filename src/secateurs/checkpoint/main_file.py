"""Which of a folder's files holds the weights that a loader would take."""

import re
from collections.abc import Iterable
from pathlib import Path

from secateurs.checkpoint.shard_index import INDEX, is_index, read_index
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.archive import is_archive
from secateurs.zoo.suffixes import CHECKPOINTS, is_named_as_weights, stem_of, suffix_of

# In the order in which loaders look for them. Those of one format can be only one checkpoint.
_USUAL = (
    ("model.safetensors", "model.safetensors.zst", f"model.safetensors{INDEX}"),
    ("pytorch_model.bin", f"pytorch_model.bin{INDEX}"),
    (
        "diffusion_pytorch_model.safetensors",
        "diffusion_pytorch_model.safetensors.zst",
        f"diffusion_pytorch_model.safetensors{INDEX}",
    ),
    ("diffusion_pytorch_model.bin", f"diffusion_pytorch_model.bin{INDEX}"),
)
# What trainers write beside the weights: by their names, these hold none.
_STATES = re.compile(
    r"(^|[^a-z])(optims?|optimizers?|sched|(lr_)?schedulers?|rng|random_states?|training_args"
    r"|train_args|trainer_state|(grad_)?scalers?|sampler|dataloader|dl_state_dict)($|[^a-z])",
    re.IGNORECASE,
)
_PART = re.compile(r"^(.*?)[-_.](\d+)-of-(\d+)$")
_SHOWN = 4


def main_file(folder: Path) -> Path:
    """The index, or the one file, that holds the weights of a folder.

    Raises:
        InvalidArgumentError: there is none, or several and none has the usual name.
        FailureError: the parts of a checkpoint are there, and their index is not.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    found = [p for p in files if _is_checkpoint(p)]
    weights = [p for p in found if not holds_state(p.name)]
    if not found:
        raise InvalidArgumentError(
            f"{folder} holds no checkpoint: no {', '.join(CHECKPOINTS)} file"
        )
    if not weights:
        raise InvalidArgumentError(
            f"{folder} holds no weights, only the state of a training ({_listed(found)}): give "
            "the folder that holds the model, or the file itself if its name misleads"
        )
    for usual in _USUAL:
        chosen = [p for p in weights if p.name in usual]
        if chosen:
            return _only(folder, chosen)
    return _only(folder, weights)


def holds_state(name: str) -> bool:
    """Whether a file of this name holds an optimizer, a scheduler or the like, by its name."""
    return _STATES.search(stem_of(name)) is not None


def _is_checkpoint(path: Path) -> bool:
    if is_index(path.name):
        return suffix_of(path.name[: -len(INDEX)]) in CHECKPOINTS
    return is_named_as_weights(path.name) or (suffix_of(path) == ".tar" and is_archive(path))


def _only(folder: Path, chosen: list[Path]) -> Path:
    if len(chosen) > 1:
        chosen = _without_parts(chosen)
    if len(chosen) == 1:
        part = _PART.match(stem_of(chosen[0].name))
        if part and int(part[3]) > 1:
            raise _missing_index(folder, chosen[0].name)
        return chosen[0]
    if all(_PART.match(stem_of(p.name)) for p in chosen):
        raise _missing_index(folder, chosen[0].name)
    raise InvalidArgumentError(
        f"{folder} holds several checkpoints ({_listed(chosen)}) and loaders differ in which they "
        "take: give the one that you mean, as a file"
    )


def _without_parts(chosen: list[Path]) -> list[Path]:
    """Leave out what an index among them names: only the index leads to all parts."""
    named = {name for path in chosen if is_index(path.name) for name in read_index(path)[1]}
    return [path for path in chosen if path.name not in named]


def _missing_index(folder: Path, part: str) -> FailureError:
    found = _PART.match(stem_of(part))
    stem = found[1] if found else "model"
    return FailureError(
        f"{folder} holds parts of a checkpoint ({part}) without their index, {stem}"
        f"{suffix_of(part)}{INDEX}: get it too"
    )


def _listed(paths: Iterable[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
