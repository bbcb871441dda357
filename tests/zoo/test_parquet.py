"""Data in parquet files, and folders with a table of labels."""

import io
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import CorruptImageError, load_data, load_model
from secateurs.zoo.loaded_model import LoadedModel


@pytest.fixture
def model() -> LoadedModel:
    torch.manual_seed(0)
    return load_model("resnet20", weights="random")


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, images: list[object], labels: list[int], name: str = "image") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({name: images, "label": labels}), path)


def structs(*levels: int) -> list[object]:
    return [{"bytes": png(level), "path": f"{level}.png"} for level in levels]


@pytest.mark.parametrize(
    ("files", "split", "expected"),
    [
        ({"train.parquet": 3, "test.parquet": 2}, None, 2),
        ({"train.parquet": 3, "test.parquet": 2}, "train", 3),
        ({"data/train-00000-of-00002.parquet": 3, "data/train-00001-of-00002.parquet": 1}, None, 4),
        ({"data/validation-00000.parquet": 1, "data/test-00000.parquet": 2}, None, 1),
    ],
)
def test_splits_of_parquet_files(
    tmp_path: Path, model: LoadedModel, files: dict[str, int], split: str, expected: int
) -> None:
    for name, count in files.items():
        write(tmp_path / name, structs(*range(count)), list(range(count)))
    data = load_data(tmp_path, model=model, split=split)
    assert len(data.dataset) == expected
    image, label = data.dataset[expected - 1]
    assert image.shape == (3, 32, 32)
    assert (image == (label / 255 - 0.5) / 0.5).all()


@pytest.mark.parametrize(
    ("images", "labels", "error"),
    [
        (structs(1, 2), [0, 10], "11 classes"),
        (structs(1), [-1], "counted from 0"),
        (structs(1), [10**6], "a label is '1000000', not a class"),
        ([1, 2], [0, 1], "not bytes of image files"),
        ([], [], "no rows"),
    ],
)
def test_tables_that_are_refused(
    tmp_path: Path, model: LoadedModel, images: list[object], labels: list[int], error: str
) -> None:
    write(tmp_path / "test.parquet", images, labels)
    with pytest.raises(InvalidArgumentError, match=error):
        load_data(tmp_path, model=model)


def test_files_may_store_images_in_different_ways(tmp_path: Path, model: LoadedModel) -> None:
    write(tmp_path / "test-0.parquet", structs(1), [1])
    for number, kind in ((2, pa.binary()), (3, pa.large_binary())):
        table = pa.table({"image": pa.array([png(number)], kind), "label": [number]})
        parquet.write_table(table, tmp_path / f"test-{number}.parquet")
    data = load_data(tmp_path, model=model).dataset
    assert [label for _, label in data] == [1, 2, 3]
    assert all((image == (label / 255 - 0.5) / 0.5).all() for image, label in data)


def test_damaged_parquet_files(tmp_path: Path, model: LoadedModel) -> None:
    write(tmp_path / "test.parquet", [{"bytes": b"no image"}, {"bytes": png(1)}], [0, 1])
    data = load_data(tmp_path, model=model)
    with pytest.raises(CorruptImageError, match=r"number 0 \(it is no JPEG, "):
        data.dataset[0]
    assert data.dataset[1][1] == 1
    with pytest.raises(InvalidArgumentError, match="no parquet files of a split 'train'"):
        load_data(tmp_path, model=model, split="train")
    write(tmp_path / "test.parquet", structs(1), [0], name="picture")
    with pytest.raises(InvalidArgumentError, match="no column 'image'"):
        load_data(tmp_path, model=model)
    (tmp_path / "test.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(FailureError, match="get it again"):
        load_data(tmp_path, model=model)


def test_labels_in_a_table(tmp_path: Path, model: LoadedModel) -> None:
    for level in (3, 7):
        (tmp_path / f"{level}.png").write_bytes(png(level))
    (tmp_path / "labels.csv").write_text("image,label\n7.png,7\n3.png,3\n")
    data = load_data(tmp_path, model=model)
    assert [data.dataset[index][1] for index in range(2)] == [7, 3]


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("image,class\na.png,1\n", "no column label"),
        ("image,label\n../a.png,1\n", "below"),
        ("image,label\na.png,one\n", "counted from 0"),
        ("image,label\na.png,1\na.png,2\n", "twice"),
        ("image,label\n", "no rows"),
        ("image,label\nb.png,1\n", "1 of the 1 images .* missing"),
        ("image,label\na.png,12\n", "13 classes"),
    ],
)
def test_tables_of_labels_that_are_refused(
    tmp_path: Path, model: LoadedModel, table: str, error: str
) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises((InvalidArgumentError, FailureError), match=error):
        load_data(tmp_path, model=model)
