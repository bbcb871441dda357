"""Each image once, in one class, and a word where some are left out or may be meant otherwise."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from zoo_samples import compatible, files_of, imagenet, labels_of, model, preprocess, write_image

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import LoadedModel, load_data, load_model
from secateurs.zoo.weights_file import read_weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs links and bytes as names")


def two_classes(folder: Path) -> Path:
    """a/1.png, a/sub/2.png and b/1.png."""
    for name in ("a/1.png", "a/sub/2.png", "b/1.png"):
        write_image(folder / name)
    return folder


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("a/loop", ".."),  # 2 images became 82
        ("a/loop", "../b"),
        ("loop", "."),
        ("c", "b"),
        ("c", "a/sub"),
        ("b/2.png", "../a/sub/2.png"),
        ("b/deep/er/all", "../../../a"),
    ],
)
def test_a_file_in_two_classes_is_refused(tmp_path: Path, link: str, target: str) -> None:
    path = two_classes(tmp_path) / link
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
    with pytest.raises(InvalidArgumentError, match="are one file in two classes: remove the link"):
        load_data(tmp_path, preprocess=preprocess())


@pytest.mark.parametrize(
    ("link", "target"),
    [("a/loop", "."), ("a/loop", "sub"), ("a/sub/up", ".."), ("a/3.png", "1.png")],
)
def test_a_link_within_a_class_counts_once_with_a_warning(
    tmp_path: Path, link: str, target: str
) -> None:
    (two_classes(tmp_path) / link).symlink_to(target)
    with pytest.warns(UserWarning, match=rf"1 link.*first .*{link}: each image is counted once"):
        data = load_data(tmp_path, preprocess=preprocess())
    assert files_of(data) == ["1.png", "2.png", "1.png"]
    assert labels_of(data) == [0, 0, 1]
    assert "loop" not in data.dataset.name_of(1) and "up" not in data.dataset.name_of(1)


def test_links_to_images_and_classes_elsewhere_are_followed(tmp_path: Path) -> None:
    elsewhere, here = two_classes(tmp_path / "elsewhere"), tmp_path / "here"
    (here / "b").mkdir(parents=True)
    (here / "a").symlink_to(elsewhere / "a")
    (here / "b" / "one.png").symlink_to(elsewhere / "b" / "1.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_data(here, preprocess=preprocess())
    assert files_of(data) == ["1.png", "2.png", "one.png"]
    assert labels_of(data) == [0, 0, 1]


def test_a_class_that_is_left_without_images_is_named(tmp_path: Path) -> None:
    two_classes(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("1.gif", "2.GIF", "3.heic", "read me", ".hidden.gif"):
        (tmp_path / "c" / name).touch()
    words = r"class folder 'c' counts as empty: of its files \(2 .gif, 1 .heic, 1 no suffix\) none"
    with pytest.warns(UserWarning, match=words):
        data = load_data(tmp_path, model=model(3))
    assert labels_of(data) == [0, 0, 1]


def test_images_of_other_formats_are_counted_in_a_warning(tmp_path: Path) -> None:
    two_classes(tmp_path)
    for name in ("a/1.gif", "b/2.GIF", "a/sub/3.heic", "a/notes.txt"):
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match=r"3 image.* not read \(2 .gif, 1 .heic\); understood"):
        assert labels_of(load_data(tmp_path, model=model(2))) == [0, 0, 1]


def test_a_class_that_is_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (two_classes(tmp_path) / "aa").symlink_to("absent")  # b would be class 1, and not 2
    with pytest.raises(FailureError, match="aa is a link that leads nowhere"):
        load_data(tmp_path, model=model(2))


def test_numbers_count_from_0_and_a_start_at_1_is_told(tmp_path: Path) -> None:
    imagenet(tmp_path / "all", ("1", "2", "3"), 1)
    words = "'3': rename .* from 0 to 2, but these count from 1: make each one smaller by one"
    with pytest.raises(InvalidArgumentError, match=words):
        load_data(tmp_path / "all", model=model(3))
    with pytest.warns(UserWarning, match="numbered from 1 to 3: folder 1 is taken for class 1"):
        assert labels_of(load_data(tmp_path / "all", model=model(1000))) == [1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (tmp_path / "all" / "0").mkdir()  # then they count from 0
        assert labels_of(load_data(tmp_path / "all", model=model(4))) == [1, 2, 3]
        imagenet(tmp_path / "some", ("1", "5"), 1)
        assert labels_of(load_data(tmp_path / "some", model=model(1000))) == [1, 5]
    imagenet(tmp_path / "gap", ("1", "2", "4"), 1)
    with pytest.warns(UserWarning, match="numbered from 1 to 4"):
        assert labels_of(load_data(tmp_path / "gap", model=model(1000))) == [1, 2, 4]
    imagenet(tmp_path / "twice", ("0", "1", "01"), 1)
    with pytest.raises(InvalidArgumentError, match="class folders '01', '1' are one class"):
        load_data(tmp_path / "twice", model=model(1000))


def test_two_folders_of_one_class_of_the_model_are_refused(tmp_path: Path) -> None:
    imagenet(tmp_path, ("hen_house", "Hen House", "fox"), 1)
    with pytest.raises(InvalidArgumentError, match="'Hen House', 'hen_house' are one class"):
        load_data(tmp_path, model=model(2, ["hen house", "fox"]))


class Silent(nn.Module):
    """Does not say how many classes it answers, and draws while it does."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.mean((2, 3)) + torch.rand(3))


def silent(module: nn.Module) -> LoadedModel:
    return LoadedModel(module.eval(), "tiny", "random", None, None, preprocess())


def test_a_model_that_does_not_say_its_number_of_classes_is_tried(tmp_path: Path) -> None:
    imagenet(tmp_path, ("wolf", "ant"), 1)
    state = torch.random.get_rng_state()
    loaded = silent(Silent(2))
    torch.random.set_rng_state(state)
    assert labels_of(load_data(tmp_path, model=loaded)) == [0, 1]
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(InvalidArgumentError, match=r"exactly 10 folders \(here 2\)"):
        load_data(tmp_path, model=silent(Silent(10)))
    with pytest.raises(InvalidArgumentError, match="digits has 10 classes but tiny has 2"):
        load_data("digits", model=silent(Silent(2)))


@pytest.mark.parametrize("folders", [("cat",), ("wolf", "ant")])
def test_classes_are_not_guessed(tmp_path: Path, folders: tuple[str, ...]) -> None:
    imagenet(tmp_path, folders, 1)
    with pytest.raises(InvalidArgumentError, match=r"is unknown.* would be guessed"):
        load_data(tmp_path, model=silent(nn.Identity()))
    assert labels_of(load_data(tmp_path, preprocess=preprocess())) == [*range(len(folders))]
    imagenet(tmp_path / "numbers", ("0", "7"), 1)
    assert labels_of(load_data(tmp_path / "numbers", model=silent(nn.Identity()))) == [0, 7]


LONG = "9" * 100_000


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", 1, 2), ("b", 1, 2), ("a", 2, 3)], "line 4: ImageId 'a' is in line 2 already"),
        ([("a", LONG, 2)], "line 2: TrueLabel must be a class"),
        ([("a", 1, "x" * 100_000)], "line 2: TargetClass must be a class"),
        ([("", 1, 2)], "line 2: ImageId must be the name of a file"),
        ([("../a", 1, 2)], r"line 2: ImageId must be the name of a file .* got '\.\./a'"),
        ([(LONG, 1, 2)], "line 2: ImageId must be the name of a file"),
    ],
)
def test_rows_of_images_csv(tmp_path: Path, rows: list[tuple[Any, ...]], words: str) -> None:
    compatible(tmp_path, [])
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    table = tmp_path / "images.csv"
    table.write_text(table.read_text() + text)
    with pytest.raises((InvalidArgumentError, FailureError), match=words) as caught:
        load_data(tmp_path, model=model(1000))
    assert len(str(caught.value)) < 1000


def test_an_index_that_is_no_file_or_no_utf_8(tmp_path: Path) -> None:
    compatible(tmp_path / "a", [("a", 1, 2)])
    (tmp_path / "a" / "images.csv").write_bytes(b"ImageId,TrueLabel\ncaf\xe9,1\n")
    with pytest.raises(FailureError, match=r"cannot read .*images\.csv: .*utf-8"):
        load_data(tmp_path / "a", model=model(1000))
    two_classes(tmp_path / "b")
    os.mkfifo(tmp_path / "b" / "images.csv")
    assert len(load_data(tmp_path / "b", model=model(2)).dataset) == 3


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_whose_path_is_not_utf_8(tmp_path: Path, suffix: str) -> None:
    weights = {"weight": torch.arange(3.0)}
    path, plain = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode()), tmp_path / "plain"
    save_file(weights, plain) if suffix == ".safetensors" else torch.save(weights, plain)
    plain.rename(path)
    assert torch.equal(read_weights(path)["weight"], weights["weight"])


@pytest.mark.parametrize("source", ["timm", "hf"])
def test_a_folder_whose_path_is_not_utf_8(tmp_path: Path, source: str) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    with pytest.raises(InvalidArgumentError, match=r"cannot read .*caf\\xe9, whose name is not"):
        load_model(f"{source}:{folder}")


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        DEEP,
        "[" * 400 + "]" * 400,
        "[1]",
        '{"architecture": 3}',
        '{"architecture": "%s"}' % ("x" * 100_000),
        '{"architecture": "resnet18", "pretrained_cfg": 5}',
        '{"architecture": "resnet18", "pretrained_cfg": {"input_size": "big"}}',
        '{"architecture": "resnet18", "num_classes": %s}' % ("9" * 5000),
        "\xff",
    ],
)
def test_odd_configurations_of_timm_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises((InvalidArgumentError, FailureError), match=r"timm|cannot read") as caught:
        load_model(f"timm:{tmp_path}")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        DEEP,
        "[1]",
        '{"model_type": "resnet", "id2label": 3}',
        '{"model_type": "resnet", "num_channels": "x"}',
        '{"model_type": ["resnet"]}',
    ],
)
def test_odd_configurations_of_transformers_are_one_line(tmp_path: Path, config: str) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "preprocessor_config.json").write_text('{"image_processor_type": "ViT"}')
    with pytest.raises((InvalidArgumentError, FailureError)) as caught:
        load_model(f"hf:{tmp_path}", weights="random")
    assert len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)
