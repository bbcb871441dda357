"""Which images are attacked, at which size, and what they are aimed at."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from digit_nets import networks
from secateurs.errors import InvalidArgumentError
from secateurs.results import digest_of
from secateurs.transfer import (
    Network,
    choose_images,
    fit_size,
    pixel_preprocess,
    shared_size,
)
from secateurs.transfer.image_choice import predict
from secateurs.zoo import LoadedData, load_data
from secateurs.zoo.digits import digits_images


def digits() -> LoadedData:
    return load_data("digits", preprocess=pixel_preprocess(8, 1))


def fitted(*names: str) -> list[Network]:
    nets = networks(*names)
    fit_size(nets, 8)
    return nets


def test_only_images_that_all_networks_classify_correctly_count() -> None:
    nets, data = fitted("hidden", "convolved", "normed"), digits()
    images = choose_images(data, nets)
    assert images.seen == len(data.dataset) == 896
    pixels = torch.stack([data.dataset[i][0] for i in range(896)])
    labels = torch.tensor([item.label for item in data.dataset.items])
    right = [predict(net, pixels) == labels for net in nets]
    assert images.accuracy == {net.name: int(r.sum()) for net, r in zip(nets, right, strict=True)}
    good = torch.stack(right).all(0)
    assert 0 < len(images) == int(good.sum()) < 896
    assert {int(name.removesuffix(".png")) for name in images.names} == set(
        good.nonzero().flatten().tolist()
    )
    for net in nets:
        assert torch.equal(predict(net, images.levels.float() / 255), images.labels)


def test_the_default_device_changes_nothing() -> None:
    nets, data = fitted("hidden"), digits()
    expected = choose_images(data, nets, limit=5)
    with torch.device("meta"):
        images = choose_images(data, nets, limit=5)
    assert images.names == expected.names
    assert torch.equal(images.targets, expected.targets)


def test_the_images_of_a_small_run_are_the_first_of_a_larger_one() -> None:
    nets, data = fitted("hidden", "convolved"), digits()
    few, more = (choose_images(data, nets, limit=limit) for limit in (5, 40))
    assert (len(few), len(more)) == (5, 40)
    assert few.names == more.names[:5]
    assert torch.equal(few.levels, more.levels[:5])
    assert torch.equal(few.targets, more.targets[:5])
    assert few.seen < 896
    assert len(set(more.labels.tolist())) > 5  # not the first classes of sorted data


def test_the_order_is_seeded() -> None:
    nets, data = fitted("hidden"), digits()
    same = [choose_images(data, nets, limit=8, seed=seed).names for seed in (0, 0, 1)]
    assert same[0] == same[1] != same[2]


def test_targets_are_drawn_where_there_are_none_and_never_the_true_class() -> None:
    looked_at: list[int] = []
    images = choose_images(digits(), fitted("hidden"), advance=looked_at.append)
    assert sum(looked_at) == images.seen == 896 and len(looked_at) > 1  # what a bar shows
    assert images.drawn
    assert not (images.targets == images.labels).any()
    shift = (images.targets - images.labels) % 10
    assert torch.bincount(shift, minlength=10)[1:].min() > 40  # of about 95 each


def test_targets_come_from_the_data_where_it_has_some() -> None:
    data = digits()
    data.targets = [(item.label + 3) % 10 for item in data.dataset.items]
    images = choose_images(data, fitted("hidden"), limit=20)
    assert not images.drawn
    assert torch.equal(images.targets, (images.labels + 3) % 10)


def test_a_target_that_is_the_true_class() -> None:
    data = digits()
    data.targets = [item.label for item in data.dataset.items]
    with pytest.raises(InvalidArgumentError, match="its true class: mend TargetClass"):
        choose_images(data, fitted("hidden"))


def test_no_image_that_can_be_read(tmp_path: Path) -> None:
    for label in "01":
        (tmp_path / label).mkdir()
        (tmp_path / label / "torn.png").write_bytes(b"torn")
    data = load_data(str(tmp_path), preprocess=pixel_preprocess(8, 1), skip_corrupt=True)
    with pytest.raises(InvalidArgumentError, match=r"none of 2 images of .* could be read"):
        choose_images(data, fitted("hidden"))


def test_no_image_that_all_classify_correctly() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        choose_images(digits(), fitted("hidden", "wrong"))
    assert "none of 896 images of digits is classified correctly by every network" in str(
        caught.value
    )
    assert "hidden 8" in str(caught.value) and "wrong " in str(caught.value)


def test_labels_that_the_networks_do_not_know() -> None:
    data = digits()
    data.dataset.items = [type(i)(i.source, i.label + 5) for i in data.dataset.items]
    with pytest.raises(InvalidArgumentError, match="labels up to 14, but hidden has 10"):
        choose_images(data, fitted("hidden"))


def test_unreadable_images_are_left_out(tmp_path: Path) -> None:
    levels, labels = digits_images("test")
    for place in range(0, 896, 60):
        folder = tmp_path / str(labels[place])
        folder.mkdir(exist_ok=True)
        Image.fromarray(levels[place]).save(folder / "same.png")
    (tmp_path / "3" / "broken.png").write_bytes(b"no image")
    nets = fitted("hidden")
    data = load_data(tmp_path, preprocess=pixel_preprocess(8, 1), skip_corrupt=True)
    images = choose_images(data, nets)
    assert images.seen == len(data.dataset) - 1
    assert not any("broken" in name for name in images.names)
    assert len(set(images.names)) == len(images)  # "same" in every class
    shutil.rmtree(tmp_path / "3")
    fewer = load_data(tmp_path, preprocess=pixel_preprocess(8, 1))
    assert len(choose_images(fewer, nets)) <= len(images)


@pytest.mark.parametrize("filter_name", ["bicubic", "bilinear"])
def test_pixels_are_those_of_pil_squashed(filter_name: str) -> None:
    picture = Image.effect_noise((31, 17), 80).convert("RGB")
    pixels = pixel_preprocess(12, 3, filter_name)(picture)
    resized = picture.resize((12, 12), getattr(Image.Resampling, filter_name.upper()))
    assert (pixels * 255).round().byte().permute(1, 2, 0).numpy().tobytes() == resized.tobytes()
    assert torch.equal(pixels, (pixels * 255).round() / 255)


def test_an_unknown_filter() -> None:
    with pytest.raises(InvalidArgumentError, match="bilinear or bicubic; got 'nearest'"):
        pixel_preprocess(8, 1, "nearest")


def test_networks_normalise_for_themselves() -> None:
    (net,) = networks("hidden")
    pixels = torch.rand(2, 1, 8, 8)
    assert torch.allclose(net.dense(pixels), net.inner((pixels - 0.5) / 0.5))
    assert not any(parameter.requires_grad for parameter in net.inner.parameters())


def test_a_network_that_takes_one_size_alone_resizes() -> None:
    nets = networks("hidden", "convolved")
    assert shared_size(nets) == 8
    fit_size(nets, 12)
    assert [net.dense.size for net in nets] == [8, 8]
    pixels = torch.rand(2, 1, 12, 12)
    small = torch.nn.functional.interpolate(pixels, size=(8, 8), mode="bilinear")
    assert torch.allclose(nets[0].dense(pixels), nets[0].inner(small * 2 - 1), atol=1e-6)
    fit_size(nets, 8)
    assert [net.dense.size for net in nets] == [None, None]


def test_networks_that_disagree_on_the_number_of_classes() -> None:
    with pytest.raises(
        InvalidArgumentError,
        match="hidden has 10 classes and eleven has 11: name networks that were trained on the",
    ):
        fit_size(networks("hidden", "eleven"), 8)


def test_networks_that_disagree_on_the_order_of_the_classes() -> None:
    with pytest.raises(
        InvalidArgumentError,
        match=r"disagree on the classes \(class 0 is '0' in one and '9' in the other\)",
    ):
        fit_size(networks("hidden", "renamed"), 8)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bytes as names")
def test_names_of_saved_images_are_utf_8_and_no_formulas(tmp_path: Path) -> None:
    data, nets = digits(), fitted("hidden")
    good = choose_images(data, nets, limit=40)
    stems = [b"caf\xe9", b"=1+1", b"-x", b"@", b"a\nb", b"caf\xff", b"plain"]
    for place, name in enumerate(good.names):
        path = tmp_path / str(int(good.labels[place])) / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        levels = digits_images()[0][int(name.removesuffix(".png"))]
        Image.fromarray(levels).save(path)
        if place < len(stems):
            path.rename(path.with_name(os.fsdecode(stems[place]) + ".png"))
    for digit in range(10):
        (tmp_path / str(digit)).mkdir(exist_ok=True)
    found = choose_images(
        load_data(tmp_path, preprocess=pixel_preprocess(8, 1)), nets, limit=len(good)
    )
    odd = {name for name in found.names if not name.removesuffix(".png").isdigit()}
    assert odd == {
        *("caf%xe9.png", "_=1+1.png", "_-x.png", "_@.png", "a%nb.png", "caf%xff.png"),
        "plain.png",
    }
    assert len(digest_of(found.names)) == 16
