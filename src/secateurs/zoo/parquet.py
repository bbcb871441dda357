"""Folders of parquet files with images and labels, as Hugging Face's data sets are published."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import one_line, printable, quoted
from secateurs.errors import FailureError, InvalidArgumentError, require
from secateurs.zoo.classes import LARGEST_LABEL, numbered_classes
from secateurs.zoo.decoding import open_image
from secateurs.zoo.images import Item, Listing
from secateurs.zoo.loaded_model import LoadedModel

if TYPE_CHECKING:
    from PIL import Image

HELD_OUT = ("validation", "val", "test")
_IMAGES, _LABELS = ("image", "img"), ("label", "labels", "fine_label")
_SPLIT = re.compile(r"([A-Za-z]+)[-_.]?.*\.parquet")


class EncodedImages:
    """Bytes of image files, as the data set of an `Item`."""

    def __init__(self, contents: Any) -> None:
        self.contents = contents

    def __getitem__(self, index: int) -> "tuple[Image.Image]":
        content = self.contents[index].as_py()
        if content is None:
            raise FailureError("the file holds no bytes for it")
        return (open_image(io.BytesIO(content)),)


def has_parquet(folder: Path) -> bool:
    """Whether ``folder``, or its ``data`` folder, holds parquet files."""
    return any(_files(folder))


def read_parquet(
    folder: Path, split: str | None, model: LoadedModel | None, usual: Sequence[str] = HELD_OUT
) -> Listing:
    """List ``DIR/SPLIT.parquet`` or ``DIR/SPLIT-*.parquet`` (also in ``DIR/data``).

    The images are a column ``image`` with the bytes of an image file in each row (``bytes`` of a
    struct, or binary); the labels are whole numbers in a column ``label``.

    Args:
        folder: DIR.
        split: which files; None for the first of the ``usual`` ones that there is, else all.
        model: must have as many classes as there are labels, where it says how many it has.
        usual: names of splits.

    Raises:
        InvalidArgumentError: no such split or column, or labels that are no classes of the model.
        FailureError: pyarrow is not installed, or a file is damaged.
    """
    splits = _splits(folder)
    name = split or next((each for each in usual if each in splits), None)
    if name is not None and name not in splits:
        raise InvalidArgumentError(
            f"{folder} has no parquet files of a split {name!r}: it has {', '.join(sorted(splits))}"
        )
    files = splits[name] if name else [path for paths in splits.values() for path in paths]
    contents, labels = _columns(files)
    if not labels:
        raise InvalidArgumentError(f"no images in {folder}: its parquet files have no rows")
    classes, indices = numbered_classes(labels, model, str(folder))
    images = EncodedImages(contents)
    items = [Item((images, index), indices[label]) for index, label in enumerate(labels)]
    return Listing(items, name or "all", classes)


def _splits(folder: Path) -> dict[str, list[Path]]:
    splits: dict[str, list[Path]] = {}
    for path in _files(folder):
        match = _SPLIT.fullmatch(path.name)
        splits.setdefault(match[1] if match else path.stem, []).append(path)
    return splits


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet")) or sorted((folder / "data").glob("*.parquet"))


def _columns(files: list[Path]) -> tuple[Any, list[int]]:
    """The bytes of all images, as one column of pyarrow, and the labels."""
    require("pyarrow", "reading parquet files", extra="parquet")
    import pyarrow as pa
    from pyarrow import parquet

    contents: list[Any] = []
    labels: list[int] = []
    for path in files:
        try:
            table = parquet.read_table(path)
            column = _column(path, table, _IMAGES)
            values = _column(path, table, _LABELS).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise FailureError(
                f"{printable(str(path))} cannot be read ({printable(one_line(error))}): get it "
                "again"
            ) from error
        chunks, kind = column.chunks, column.type
        if pa.types.is_struct(kind):
            index = kind.get_field_index("bytes")
            if index < 0:
                raise _unknown(path, "the images have no field 'bytes'")
            chunks, kind = [chunk.field(index) for chunk in chunks], kind[index].type
        if values and not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
            raise _unknown(path, f"the images are {kind}, not bytes of image files")
        wrong = [v for v in values if not isinstance(v, int) or not 0 <= v <= LARGEST_LABEL]
        if wrong:
            raise _unknown(path, f"a label is {quoted(str(wrong[0]))}, not a class counted from 0")
        contents += [chunk.cast(pa.large_binary()) for chunk in chunks if len(chunk)]
        labels += values
    return pa.chunked_array(contents, pa.large_binary()), labels


def _column(path: Path, table: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if name in table.column_names:
            return table.column(name)
    raise _unknown(path, f"it has no column {names[0]!r} (it has {', '.join(table.column_names)})")


def _unknown(path: Path, what: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{printable(str(path))} is not understood: {what}; columns 'image' (bytes of image files) "
        "and 'label' (whole numbers from 0) are"
    )
