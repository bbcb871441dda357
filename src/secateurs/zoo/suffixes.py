"""The suffixes of files of weights, in upper or lower case."""

from pathlib import Path

from secateurs.errors import InvalidArgumentError

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th", ".tar")
"""Usual suffixes of files of ``torch.save``; the last is that of ``.pth.tar`` and the like."""

SUFFIXES = (".safetensors", *PICKLED)
"""The suffixes of files of weights that `load_model` reads."""

COMPRESSED = ".safetensors.zst"
"""The suffix of safetensors as one zstd stream."""

CHECKPOINTS = (".safetensors", COMPRESSED, *PICKLED)
"""The suffixes of all files of weights that `secateurs.checkpoint` reads."""


def suffix_of(path: str | Path) -> str:
    """The suffix in lower case, as in `CHECKPOINTS`, or another one."""
    name = Path(path).name.lower()
    return COMPRESSED if name.endswith(COMPRESSED) else Path(name).suffix


def stem_of(name: str) -> str:
    """The file's name without its suffix; ``.pth.tar`` and its like are one suffix.

    Example:
        >>> stem_of("model_best.pth.tar"), stem_of("model.v2.PT"), stem_of("model.safetensors.zst")
        ('model_best', 'model.v2', 'model')
    """
    stem = name[: -len(suffix_of(name))] if suffix_of(name) in CHECKPOINTS else name
    doubled = suffix_of(name) == ".tar" and suffix_of(stem) in PICKLED
    return Path(stem).stem if doubled else stem


def is_named_as_weights(name: str) -> bool:
    """Whether a file holds weights, by its name; ``.pth.tar`` does, ``.tar`` not."""
    doubled = suffix_of(name) != ".tar" or suffix_of(Path(name).stem) in PICKLED
    return suffix_of(name) in CHECKPOINTS and doubled


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors, by its suffix, or by its first bytes if that is unknown.

    Raises:
        InvalidArgumentError: its first bytes contradict its suffix.
        OSError: it cannot be read.
    """
    suffix = suffix_of(path)
    with path.open("rb") as file:
        head = file.read(9)
    begins = head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if suffix in PICKLED and begins:
        raise InvalidArgumentError(f"{path} is a safetensors file: give it the suffix .safetensors")
    if suffix == ".safetensors" and head[:4] == b"PK\x03\x04":
        raise InvalidArgumentError(f"{path} is a file of torch.save: give it the suffix .pt")
    return suffix == ".safetensors" if suffix in SUFFIXES else begins
