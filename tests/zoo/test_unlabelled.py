"""Images without labels, and images that are in two data sets."""

from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from secateurs import InvalidArgumentError
from secateurs.zoo import LoadedData, LoadedModel, load_data, load_model, load_unlabelled
from secateurs.zoo.images import Item
from secateurs.zoo.same_images import refuse_same_images, same_files


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model("digits", weights="random")


def picture(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)
    return path


def sources(data: LoadedData) -> list[str]:
    return [Path(str(item.source)).name for item in data.dataset.items]


def test_images_of_any_layout_are_found_in_order(tmp_path: Path, model: LoadedModel) -> None:
    for number, name in enumerate(("b.png", "unheard of/c.png", "a.png", "x/y/d.png")):
        picture(tmp_path / name, 10 * number)
    (tmp_path / "authors.csv").write_text("not an image")
    data = load_unlabelled(tmp_path, model=model)
    assert sources(data) == ["a.png", "b.png", "c.png", "d.png"]
    assert {label for _, label in map(data.dataset.__getitem__, range(4))} == {0}
    first, second = sources(load_unlabelled(tmp_path, model=model, limit=2))
    assert first in ("a.png", "b.png") and second in ("c.png", "d.png")


def test_the_training_split_where_there_is_one(tmp_path: Path, model: LoadedModel) -> None:
    picture(tmp_path / "train/1/a.png", 1)
    picture(tmp_path / "val/1/b.png", 2)
    assert sources(load_unlabelled(tmp_path, model=model)) == ["a.png"]
    assert sources(load_unlabelled(tmp_path, model=model, split="val")) == ["b.png"]
    digits = load_unlabelled("digits", model=model)
    assert digits.split == "train" and len(digits.dataset) == 901


def test_a_folder_without_images_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^no images in .*: give a folder that holds"):
        load_unlabelled(tmp_path, model=model)


def test_a_network_alone_has_no_preprocessing() -> None:
    with pytest.raises(InvalidArgumentError, match="model must be what load_model gives, got Lin"):
        load_unlabelled("digits", model=nn.Linear(1, 1))


@pytest.mark.parametrize("limit", [0, -1, "2"])
def test_a_limit_is_a_number_of_images(model: LoadedModel, limit: object) -> None:
    with pytest.raises(InvalidArgumentError, match="limit must be a whole number from 1"):
        load_unlabelled("digits", model=model, limit=limit)


def test_images_that_are_scored_too_are_refused(tmp_path: Path, model: LoadedModel) -> None:
    calibration = tmp_path / "calibration"
    picture(calibration / "same size.png", 3)
    picture(calibration / "copied.png", 5)
    picture(tmp_path / "scored/1/other.png", 4)
    unlabelled = load_unlabelled(calibration, model=model)
    refuse_same_images(unlabelled.dataset, load_data(tmp_path / "scored", model=model).dataset)
    copy = tmp_path / "scored/1/copy.png"
    copy.write_bytes((calibration / "copied.png").read_bytes())
    with pytest.raises(InvalidArgumentError, match=r"image .*copied\.png is scored, too \(as .*co"):
        refuse_same_images(unlabelled.dataset, load_data(tmp_path / "scored", model=model).dataset)


@pytest.mark.parametrize("name", ["other.bmp", "other.png"])
def test_images_that_were_saved_again_are_the_same(
    tmp_path: Path, model: LoadedModel, name: str
) -> None:
    scored = picture(tmp_path / "scored/1/image.png", 5)
    again = tmp_path / "calibration" / name
    again.parent.mkdir()
    Image.open(scored).save(again, **({"compress_level": 0} if name == "other.png" else {}))
    Image.new("L", (9, 8), 5).save(tmp_path / "calibration/wider.png")
    assert again.read_bytes() != scored.read_bytes()
    data = load_data(tmp_path / "scored", model=model).dataset
    with pytest.raises(InvalidArgumentError, match=rf"{name} is scored, too \(as .*image\.png\)"):
        refuse_same_images(load_unlabelled(again.parent, model=model).dataset, data)


def test_pixels_of_named_sets_are_compared(tmp_path: Path, model: LoadedModel) -> None:
    test = load_data("digits", model=model)
    refuse_same_images(load_unlabelled("digits", model=model).dataset, test.dataset)
    images, index = test.dataset.items[7].source
    images[index][0].save(tmp_path / "seven.png")
    with pytest.raises(InvalidArgumentError, match=r"seven\.png is scored, too \(as number 7\)"):
        refuse_same_images(load_unlabelled(tmp_path, model=model).dataset, test.dataset)


def test_images_that_cannot_be_read_are_left_to_who_reads_them(
    tmp_path: Path, model: LoadedModel
) -> None:
    picture(tmp_path / "a.png", 3)
    data = load_unlabelled(tmp_path, model=model).dataset
    other = load_unlabelled(tmp_path, model=model).dataset
    other.items = [Item(tmp_path / "gone.png", 0), Item(([], 3), 0)]
    refuse_same_images(data, other)
    refuse_same_images(other, data)


def test_files_that_two_data_sets_share_are_known_by_any_path(
    tmp_path: Path, model: LoadedModel
) -> None:
    picture(tmp_path / "a/train/1/one.png", 1)
    picture(tmp_path / "a/test/1/two.png", 2)
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    train = load_data(tmp_path / "a", model=model, split="train")
    assert same_files(train, load_data(tmp_path / "a", model=model, split="test")) is None
    again = load_data(tmp_path / "linked", model=model, split="train")
    assert same_files(train, again) == "the split train"
    found = same_files(train, load_data(tmp_path / "linked/train", model=model))
    assert found is not None and found.endswith("a/train/1/one.png")
