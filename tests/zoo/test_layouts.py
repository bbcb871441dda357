"""The two folder layouts: order, labels, and every way in which a folder can be wrong."""

import sys
from pathlib import Path

import pytest
import torch
from zoo_samples import (
    WNIDS,
    compatible,
    files_of,
    imagenet,
    labels_of,
    model,
    preprocess,
    write_image,
)

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import SKIPPED, load_data

# --- ImageNet layout --------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "val", "validation"])
def test_wordnet_folders_are_imagenets_classes_also_when_few(tmp_path: Path, below: str) -> None:
    imagenet(tmp_path / below)
    if below:
        imagenet(tmp_path / "train", ("n01443537",))
    data = load_data(tmp_path, model=model(1000))
    assert labels_of(data) == [0, 0, 0, 1, 1, 1, 999, 999, 999]
    assert data.split == (below or "all")
    assert data.classes == list(WNIDS)
    assert data.dataset[0][0].shape == (3, 8, 8)
    assert data.name == str(tmp_path)


def test_a_background_class_moves_imagenet_by_one(tmp_path: Path) -> None:
    imagenet(tmp_path)
    names = ["background", *(f"thing {i}" for i in range(1000))]
    assert set(labels_of(load_data(tmp_path, model=model(1001, names)))) == {1, 2, 1000}


def test_split_is_a_sub_folder(tmp_path: Path) -> None:
    imagenet(tmp_path / "val")
    imagenet(tmp_path / "test", count=1)
    data = load_data(tmp_path, model=model(1000), split="test")
    assert (len(data.dataset), data.split) == (3, "test")
    with pytest.raises(InvalidArgumentError, match=r"no folder 'dev' \(it has test, val\)"):
        load_data(tmp_path, model=model(1000), split="dev")


def test_order_is_sorted_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/1.png", "a/x/9.png", "a/z.webp", "a/.hidden.png", ".git/no.png"):
        write_image(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    data = load_data(tmp_path, preprocess=preprocess(), model=model(3))
    assert files_of(data) == ["9.png", "z.webp", "1.png", "2.png"]
    assert labels_of(data) == [0, 0, 1, 1]


def test_the_models_own_names_come_first(tmp_path: Path) -> None:
    imagenet(tmp_path, ("Great_White", "cat"), 1)
    data = load_data(tmp_path, model=model(3, ["dog", "cat", "great white"]))
    assert labels_of(data) == [2, 1]


def test_names_that_occur_twice_stand_for_neither(tmp_path: Path) -> None:
    imagenet(tmp_path, ("crane", "cat"), 1)
    with pytest.raises(InvalidArgumentError, match="'crane'"):
        load_data(tmp_path, model=model(3, ["crane", "cat", "crane"]))


def test_whole_numbers_are_indices(tmp_path: Path) -> None:
    imagenet(tmp_path, ("2", "10", "0"), 1)
    assert labels_of(load_data(tmp_path, model=model(1000))) == [0, 10, 2]
    with pytest.raises(InvalidArgumentError, match=r"folder '10'.*numbers from 0 to 9"):
        load_data(tmp_path, model=model(10))


def test_sorted_order_when_the_counts_agree(tmp_path: Path) -> None:
    imagenet(tmp_path, ("wolf", "ant", "bee"), 1)
    assert labels_of(load_data(tmp_path, model=model(3))) == [0, 1, 2]


def test_unknown_class_folders_are_named(tmp_path: Path) -> None:
    imagenet(tmp_path, ("wolf", "ant", "bee"), 1)
    with pytest.raises(InvalidArgumentError) as caught:
        load_data(tmp_path, model=model(10))
    text = str(caught.value)
    assert "tiny does not know the class folders 'ant', 'bee', 'wolf'" in text
    assert "exactly 10 folders (here 3)" in text


def test_one_unknown_folder_among_known_ones_is_not_guessed(tmp_path: Path) -> None:
    imagenet(tmp_path, (*WNIDS, "n99999999"), 1)
    with pytest.raises(InvalidArgumentError, match="know the class folder 'n99999999': rename"):
        load_data(tmp_path, model=model(1000))
    imagenet(tmp_path / "animals", ("cats", "dog"), 1)
    with pytest.raises(InvalidArgumentError, match="'cats'"):
        load_data(tmp_path / "animals", model=model(2, ["cat", "dog"]))


def test_without_a_model(tmp_path: Path) -> None:
    imagenet(tmp_path / "a")
    assert set(labels_of(load_data(tmp_path / "a", preprocess=preprocess()))) == {0, 1, 999}
    imagenet(tmp_path / "b", ("wolf", "ant"), 1)
    assert labels_of(load_data(tmp_path / "b", preprocess=preprocess())) == [0, 1]
    with pytest.raises(InvalidArgumentError, match="needs preprocess"):
        load_data(tmp_path / "a")
    with pytest.raises(InvalidArgumentError, match=r"load_model gives, got Linear; .* give pre"):
        load_data(tmp_path / "a", model=torch.nn.Linear(1, 1))


def test_without_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transform = preprocess()
    monkeypatch.setitem(sys.modules, "timm", None)
    imagenet(tmp_path / "own", ("wolf", "ant"), 1)
    assert labels_of(load_data(tmp_path / "own", preprocess=transform)) == [0, 1]
    imagenet(tmp_path / "imagenet")
    with pytest.raises(FailureError, match="needs timm: pip install timm"):
        load_data(tmp_path / "imagenet", preprocess=transform)


def test_no_images(tmp_path: Path) -> None:
    words = "no images in .*understood are DIR/val/CLASS.*DIR/CLASS.*images.csv"
    with pytest.raises(InvalidArgumentError, match=words):
        load_data(tmp_path, model=model(2))
    (tmp_path / "class").mkdir()
    with pytest.raises(InvalidArgumentError, match=words):
        load_data(tmp_path, model=model(2))


def test_images_without_class_folders(tmp_path: Path) -> None:
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(InvalidArgumentError, match="put the images into one folder a class"):
        load_data(tmp_path, model=model(2))


def test_no_held_out_folder(tmp_path: Path) -> None:
    imagenet(tmp_path / "train")
    with pytest.raises(InvalidArgumentError, match=r"no val folder but train: give .*train as the"):
        load_data(tmp_path, model=model(1000))
    assert load_data(tmp_path / "train", model=model(1000)).split == "train"
    (tmp_path / "dev").mkdir()  # these are no two classes
    with pytest.raises(InvalidArgumentError, match=r"dev and train: give .*dev as the data"):
        load_data(tmp_path, model=model(2))
    for split in ("test", "valid"):
        imagenet(tmp_path / split)
        assert load_data(tmp_path, model=model(1000)).split == split
        assert load_data(tmp_path / split, model=model(1000)).split == split


def test_no_such_folder_or_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no data 'minst'.*did you mean mnist"):
        load_data("minst", model=model(10))
    (tmp_path / "file").touch()
    with pytest.raises(InvalidArgumentError, match="is a file: give a folder"):
        load_data(tmp_path / "file", model=model(10))


# --- ImageNet-Compatible layout ---------------------------------------------------------


def test_compatible_labels_count_from_one(tmp_path: Path) -> None:
    compatible(tmp_path, [("z", 1, 1000), ("a", 1000, 7)])
    data = load_data(tmp_path, model=model(1000))
    assert files_of(data) == ["z.png", "a.png"]  # the order of the csv
    assert labels_of(data) == [0, 999]
    assert data.targets == [999, 6]
    assert data.split == "test"
    limited = load_data(tmp_path, model=model(1000), limit=1)
    assert limited.targets == [999]
    names = ["background", *(f"thing {i}" for i in range(1000))]
    assert labels_of(load_data(tmp_path, model=model(1001, names))) == [1, 1000]


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    compatible(tmp_path, [("z", 1, 2)], ("ImageId", "TrueLabel", "TrueLabel"))
    with pytest.raises(InvalidArgumentError, match="two columns TrueLabel: remove the one"):
        load_data(tmp_path, model=model(1000))


def test_compatible_without_targets(tmp_path: Path) -> None:
    compatible(tmp_path, [("z", 1)], ("ImageId", "TrueLabel"))
    assert load_data(tmp_path, model=model(None)).targets is None


@pytest.mark.parametrize("label", ["0", "1001", "", "cat"])
def test_compatible_labels_out_of_range(tmp_path: Path, label: str) -> None:
    compatible(tmp_path, [("a", 5, 6), ("z", label, 1)])
    with pytest.raises(InvalidArgumentError, match=r"line 3: TrueLabel must be .* from 1 to 1000"):
        load_data(tmp_path, model=model(1000))


def test_compatible_needs_its_columns_rows_images_and_model(tmp_path: Path) -> None:
    compatible(tmp_path / "a", [("z", 1)], ("Name", "TrueLabel"))
    with pytest.raises(InvalidArgumentError, match="no column ImageId: it needs ImageId"):
        load_data(tmp_path / "a", model=model(1000))
    compatible(tmp_path / "b", [])
    with pytest.raises(InvalidArgumentError, match="has no rows"):
        load_data(tmp_path / "b", model=model(1000))
    compatible(tmp_path / "c", [("x", 1, 2), ("y", 2, 3)])
    with pytest.raises(InvalidArgumentError, match="1000 classes of ImageNet but tiny has 10"):
        load_data(tmp_path / "c", model=model(10))
    with pytest.raises(InvalidArgumentError, match=r"no part 'train': leave split out"):
        load_data(tmp_path / "c", model=model(1000), split="train")
    (tmp_path / "c" / "images" / "y.png").unlink()
    with pytest.raises(FailureError, match=r"1 of the 2 images .* missing, first .*y\.png"):
        load_data(tmp_path / "c", model=model(1000))
    data = load_data(tmp_path / "c", model=model(1000), skip_corrupt=True)
    assert labels_of(data) == [0, SKIPPED]
