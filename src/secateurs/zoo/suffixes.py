"""By which suffixes files of weights are known, in any case of letters."""

from pathlib import Path

from secateurs.errors import InvalidArgumentError

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".th", ".tar")
"""What people call files of ``torch.save``; the last stands for ``.pth.tar`` and its like."""

SUFFIXES = (".safetensors", *PICKLED)
"""The files of weights that fit into memory: safetensors, and what ``torch.save`` wrote."""

COMPRESSED = ".safetensors.zst"
"""safetensors as one zstd stream."""

CHECKPOINTS = (".safetensors", COMPRESSED, *PICKLED)
"""All files of weights that `secateurs.checkpoint` reads."""


def suffix_of(path: str | Path) -> str:
    """The suffix in small letters, as it stands in `CHECKPOINTS`, or another."""
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
    """Whether a file among others is one of weights, by its name: not any ``.tar`` is."""
    doubled = suffix_of(name) != ".tar" or suffix_of(Path(name).stem) in PICKLED
    return suffix_of(name) in CHECKPOINTS and doubled


def is_safetensors(path: Path) -> bool:
    """Whether a file is to be read as safetensors: by its suffix, else by how it begins.

    Raises:
        InvalidArgumentError: it begins as a file of the other format.
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
