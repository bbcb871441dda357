"""Find the file of a folder that a loader would read the weights from."""

import re
from collections.abc import Iterable
from pathlib import Path

from secateurs._io.text import listed
from secateurs.checkpoint.shard_index import INDEX, is_index, read_index
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.archive import is_archive
from secateurs.zoo.suffixes import CHECKPOINTS, is_named_as_weights, stem_of, suffix_of

# In the order in which loaders try them; in place of each there may be an index, or a compressed
# file.
_USUAL = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
# The names of other files that trainers write, which hold no weights.
_STATES = re.compile(
    r"(^|[^a-z])(optims?|optimizers?|sched|(lr_)?schedulers?|rng|random_states?|training_args"
    r"|train_args|trainer_state|(grad_)?scalers?|sampler|dataloader|dl_state_dict)($|[^a-z])",
    re.IGNORECASE,
)
_SHARD = re.compile(r"^(.*?)[-_.](\d+)-of-(\d+)$")


def main_file(folder: Path) -> Path:
    """The index, or the single file, with the weights of a folder.

    Raises:
        InvalidArgumentError: there is none, or there are several and none has a usual name.
        FailureError: there are shards of a checkpoint, but not their index.
    """
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    found = [p for p in files if _is_checkpoint(p)]
    weights = [p for p in found if not _STATES.search(stem_of(p.name))]
    if not found:
        raise InvalidArgumentError(
            f"{folder} holds no checkpoint: no {', '.join(CHECKPOINTS)} file"
        )
    if not weights:
        raise InvalidArgumentError(
            f"{folder} holds no weights, only the state of a training ({_names(found)}): give "
            "the folder that holds the model, or the file itself if its name is misleading"
        )
    for usual in _USUAL:
        chosen = [p for p in weights if p.name in (usual, f"{usual}.zst", f"{usual}{INDEX}")]
        if chosen:
            return _only(folder, chosen)
    return _only(folder, weights)


def _is_checkpoint(path: Path) -> bool:
    if is_index(path.name):
        return suffix_of(path.name[: -len(INDEX)]) in CHECKPOINTS
    return is_named_as_weights(path.name) or (suffix_of(path) == ".tar" and is_archive(path))


def _only(folder: Path, chosen: list[Path]) -> Path:
    if len(chosen) > 1:  # an index includes the shards that it names
        named = {name for path in chosen if is_index(path.name) for name in read_index(path)[1]}
        chosen = [path for path in chosen if path.name not in named]
    shards = [_SHARD.match(stem_of(path.name)) for path in chosen]
    is_whole = len(chosen) == 1 and (shards[0] is None or int(shards[0][3]) == 1)
    if is_whole:
        return chosen[0]
    if shards[0] and all(shards):
        name = chosen[0].name
        raise FailureError(
            f"{folder} holds parts of a checkpoint ({name}) without their index, {shards[0][1]}"
            f"{suffix_of(name)}{INDEX}: get it too"
        )
    raise InvalidArgumentError(
        f"{folder} holds several checkpoints ({_names(chosen)}) and loaders differ in which they "
        "take: give the one that you mean, as a file"
    )


def _names(paths: Iterable[Path]) -> str:
    return listed((path.name for path in paths), 4)
