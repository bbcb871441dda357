"""The index of a checkpoint in several files, which maps the names of tensors to files."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from secateurs._io.json_objects import read_object_file
from secateurs._io.text import quoted
from secateurs.checkpoint.contents import StoredFile
from secateurs.errors import FailureError
from secateurs.zoo.suffixes import CHECKPOINTS, suffix_of

INDEX = ".index.json"
_LONGEST_FILE_NAME = 255
# The names of tensors that models tie to another, so that loaders do not need them in a file.
_TIED = (
    "*lm_head.weight", "*lm_head.bias", "*embed_out.weight", "*output_embeddings.weight",
    "*embed_tokens.weight", "*word_embeddings.weight", "*wte.weight", "*shared.weight",
    "*predictions.decoder.weight", "*predictions.decoder.bias", "*proj_out.weight",
    "*output_projection.weight", "output.weight",
)  # fmt: skip


def is_index(name: str) -> bool:
    """Whether a file of this name is an index."""
    return name.lower().endswith(INDEX)


def read_index(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Read an index.

    Returns:
        Its contents, and the names of the files, sorted.

    Raises:
        FailureError: it is damaged, or names a file outside its folder.
    """
    content = read_object_file(path, "as an index", strict=True)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FailureError(f"cannot read {path} as an index: it has no weight_map; get it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not is_shard_name(file):
            raise FailureError(
                f"{path} says that {quoted(name)} is in {quoted(file)}, which is no file name "
                "in its folder; get it again"
            )
    return content, sorted(set(weight_map.values()))


def check_agreement(
    index: Path, weight_map: dict[str, str], files: Sequence[StoredFile]
) -> tuple[str, ...]:
    """Compare an index with the files that it names.

    Returns:
        The tensors that no file holds, and that by their names are tied to another tensor, so that
        loaders do not need them.

    Raises:
        FailureError: a tensor is in two files, or not in the file that the index names.
    """
    held: dict[str, str] = {}
    for file in files:
        for name in (name for entry in file.entries for name in entry.names):
            if name in held:
                raise FailureError(
                    f"tensor {quoted(name)} is in both {held[name]} and {file.path.name}: the "
                    "folder holds parts of two checkpoints, get it again"
                )
            held[name] = file.path.name
    tied: list[str] = []
    for name, file in weight_map.items():
        if name not in held and _may_be_tied(index, name):
            tied.append(name)
        elif held.get(name) != file and not name.startswith("__"):
            where = f"it is in {held[name]}" if name in held else "no file holds it"
            raise FailureError(
                f"{index} says that {quoted(name)} is in {file}, and it is not: {where}; get "
                "both again"
            )
    return tuple(tied)


def _may_be_tied(index: Path, name: str) -> bool:
    """Whether the model may use another tensor, which a file holds, under this name."""
    if not any(fnmatchcase(name, pattern) for pattern in _TIED):
        return False
    config = index.with_name("config.json")
    return not config.is_file() or read_object_file(config).get("tie_word_embeddings") is not False


def is_shard_name(name: str) -> bool:
    """Whether this can be the name of a shard in the folder of its index."""
    known = suffix_of(name) in CHECKPOINTS and len(name.encode()) <= _LONGEST_FILE_NAME
    return known and not set(name) & set('/\\\0:"') and name.isprintable() and name[0] != "."
