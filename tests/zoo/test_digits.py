"""The digits network: deterministic, cached, accurate, and quiet about its surroundings."""

import copy
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from secateurs.errors import InvalidArgumentError
from secateurs.zoo import digits, digits_model, load_data, load_model


@pytest.fixture(autouse=True)
def _use_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", str(cache))


QUICK = digits.Recipe("digits-quick-1", digits.DigitsCNN, epochs=1)


def quick() -> digits.DigitsCNN:
    """A network that is trained for a moment, and kept as those with names are."""
    return digits.made(QUICK, pretrained=True)


def cached_file(folder: Path) -> Path:
    return folder / f"{QUICK.name}.safetensors"


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_split_is_fixed_stratified_and_disjoint() -> None:
    train, train_labels = digits.digits_images("train")
    test, test_labels = digits.digits_images("test")
    assert (len(train), len(test)) == (901, 896)
    assert train.dtype == np.uint8
    assert (train.min(), train.max()) == (0, 255)
    for digit in range(10):
        difference = (train_labels == digit).sum() - (test_labels == digit).sum()
        assert difference in (0, 1)
    from sklearn.datasets import load_digits

    both = np.concatenate([train, test]).reshape(-1, 64)
    everything = np.round(load_digits().data * (255 / 16)).astype(np.uint8)
    assert sorted(map(bytes, both)) == sorted(map(bytes, everything))


def test_unknown_split() -> None:
    with pytest.raises(InvalidArgumentError, match="split must be one of train, test; got 'val'"):
        digits.digits_images("val")


def test_it_reads_the_held_out_digits() -> None:
    loaded = digits_model()
    data = load_data("digits", model=loaded)
    images = torch.stack([data.dataset[i][0] for i in range(len(data.dataset))])
    labels = torch.tensor([item.label for item in data.dataset.items])
    assert images.shape == (896, 1, 8, 8)
    with torch.inference_mode():
        right = (loaded.model(images).argmax(1) == labels).float().mean().item()
    assert right > 0.98
    assert loaded.num_classes == 10
    assert loaded.classes == [str(digit) for digit in range(10)]
    assert (loaded.name, loaded.weights) == ("digits-cnn", digits.RECIPE)
    assert not loaded.model.training
    assert 30_000 < sum(p.numel() for p in loaded.model.parameters()) < 60_000


def test_training_uses_the_pixels_that_the_data_set_gives() -> None:
    levels, _ = digits.digits_images("test")
    loaded = load_model("digits", weights="random")
    by_hand = torch.from_numpy(levels[5]).float().div(255).sub(0.5).div(0.5)
    assert torch.allclose(loaded.preprocess(Image.fromarray(levels[5]))[0], by_hand, atol=1e-6)


def test_it_is_trained_once_and_quietly_without_a_terminal_and_read_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path))
    first = quick()
    assert capfd.readouterr() == ("", "")
    written = cached_file(tmp_path).stat().st_mtime_ns
    assert same(first, quick())
    assert cached_file(tmp_path).stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [cached_file(tmp_path).name]


def test_training_repeats_and_leaves_the_caller_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = quick()
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "fresh" / "deeper"))
    torch.manual_seed(123)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            again = quick()
            assert torch.is_inference_mode_enabled()
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert again.conv1.weight.dtype == torch.float32
    assert not again.conv1.weight.is_inference()
    assert same(known, again)
    if os.name == "posix":  # other users of the cache can read it, as far as the mask lets them
        mask = os.umask(0)
        os.umask(mask)
        mode = cached_file(tmp_path / "fresh" / "deeper").stat().st_mode
        assert stat.S_IMODE(mode) == 0o666 & ~mask


@pytest.mark.parametrize("damage", ["short", "flipped", "foreign"])
def test_a_damaged_cache_is_trained_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    known = quick()
    whole = bytearray(cached_file(cache).read_bytes())
    if damage == "short":
        whole = whole[:-100]
    elif damage == "flipped":
        whole[-100] ^= 0xFF
    else:
        from safetensors.torch import save

        whole = bytearray(save({"a": torch.zeros(1)}))
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path))
    cached_file(tmp_path).write_bytes(whole)
    assert same(quick(), known)
    assert cached_file(tmp_path).read_bytes() == cached_file(cache).read_bytes()


def test_an_unwritable_cache_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="set SECATEURS_CACHE to a folder that can be written"):
        quick()


def test_by_every_name() -> None:
    known = digits.digits_cnn()
    for spec in ("digits", "digits-cnn", "secateurs.zoo.digits:digits_cnn"):
        loaded = load_model(spec)
        assert same(loaded.model, known)
        assert loaded.preprocess.img_size == 8


def test_untrained_is_said_and_seeded_by_the_caller(cache: Path) -> None:
    torch.manual_seed(7)
    first = load_model("digits", weights="random")
    torch.manual_seed(7)
    second = load_model("digits", weights="random")
    assert first.weights == "random"
    assert same(first.model, second.model)
    assert not same(first.model, digits.digits_cnn())


def test_weights_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = digits.digits_cnn(pretrained=False).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path / "unused"))
    loaded = load_model("digits", weights=str(tmp_path / "mine.pth"))
    assert loaded.weights == "mine.pth"
    assert torch.equal(loaded.model.state_dict()["conv1.weight"], state["conv1.weight"])
    assert not (tmp_path / "unused").exists()  # nothing was trained


def test_it_copies_and_pickles() -> None:
    model = digits.digits_cnn()
    assert same(copy.deepcopy(model), model)
    assert same(pickle.loads(pickle.dumps(model)), model)


@pytest.mark.parametrize("name", ["digits", "lenet5"])
def test_another_number_of_classes_is_refused(name):
    with pytest.raises(InvalidArgumentError, match="has 10 classes, not 7"):
        load_model(name, weights="random", num_classes=7)
    assert load_model(name, weights="random", num_classes=10).num_classes == 10
