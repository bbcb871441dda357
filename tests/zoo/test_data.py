"""Limits and named sets."""

from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Subset
from zoo_samples import files_of, imagenet, labels_of, model, preprocess

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import load_data
from secateurs.zoo.images import halves, subset

# --- limit and order --------------------------------------------------------------------


def test_limit_is_spread_over_the_classes(tmp_path: Path) -> None:
    imagenet(tmp_path, ("0", "1", "2", "3"), 5)
    whole = load_data(tmp_path, model=model(4))
    for limit in range(4, 21):
        data = load_data(tmp_path, model=model(4), limit=limit)
        assert len(data.dataset) == limit
        assert set(labels_of(data)) == {0, 1, 2, 3}
        assert files_of(data) == sorted(set(files_of(data)))
        assert set(files_of(data)) <= set(files_of(whole))
    assert len(load_data(tmp_path, model=model(4), limit=99).dataset) == 20
    with pytest.raises(InvalidArgumentError, match="limit must be a whole number from 1"):
        load_data(tmp_path, model=model(4), limit=0)


@pytest.mark.parametrize("limit", range(5, 60, 6))
def test_classes_that_take_turns_are_all_there(limit: int) -> None:
    turns, sizes = [index % 5 for index in range(60)], [0] * 50 + [1] * 10
    chosen = subset(turns, limit)
    counts = [sum(turns[index] == label for index in chosen) for label in range(5)]
    assert len(chosen) == limit and max(counts) - min(counts) <= 1
    assert chosen == sorted(set(chosen))
    assert abs(sum(sizes[index] for index in subset(sizes, limit)) - limit / 6) <= 1
    unknown = [0] * 60
    assert subset(unknown, limit) == subset(unknown, limit)
    parts = [(part * 60 // limit, (part + 1) * 60 // limit) for part in range(limit)]
    drawn = zip(parts, subset(unknown, limit), strict=True)
    assert all(start <= index < stop for (start, stop), index in drawn)


@pytest.mark.parametrize("count", [2, 7, 100])
def test_halves_of_unlabelled_images_are_not_in_step_with_their_classes(count: int) -> None:
    first, second = halves([0] * count)
    assert sorted(first + second) == list(range(count)) and len(first) - len(second) in (0, 1)
    if count == 100:  # of two classes that take turns, either is in both halves
        assert 15 < sum(index % 2 for index in first) < 35


def test_a_rest_can_be_resumed(tmp_path: Path) -> None:
    data = load_data(imagenet(tmp_path), model=model(1000))
    rest = Subset(data.dataset, range(4, len(data.dataset)))
    _, labels = next(iter(DataLoader(rest, batch_size=9)))
    assert labels.tolist() == labels_of(data)[4:]


# --- by name ----------------------------------------------------------------------------


def test_a_function_of_ones_own_is_no_preprocessing() -> None:
    with pytest.raises(InvalidArgumentError, match="got builtin_function_or_method; it holds"):
        load_data("digits", preprocess=print)  # pyright: ignore[reportArgumentType]


def test_digits_by_name() -> None:
    data = load_data("digits", preprocess=preprocess(1))
    assert (data.name, data.split, len(data.dataset)) == ("digits", "test", 896)
    assert len(load_data("digits", preprocess=preprocess(1), split="train").dataset) == 901
    image, label = data.dataset[895]
    assert image.shape == (1, 8, 8)
    assert label == 9
    assert load_data("Digits", preprocess=preprocess(3, 32)).dataset[0][0].shape == (3, 32, 32)
    with pytest.raises(InvalidArgumentError, match="split must be one of train, test"):
        load_data("digits", preprocess=preprocess(1), split="val")


def test_named_sets_are_for_models_with_their_classes() -> None:
    with pytest.raises(InvalidArgumentError, match="digits has 10 classes but tiny has 1000: name"):
        load_data("digits", model=model(1000))
    turned = model(10, [str(9 - i) for i in range(10)])
    assert load_data("digits", model=turned).dataset[0][1] == 9


@pytest.mark.shared
def test_mnist_from_a_folder(shared_data: Path) -> None:
    data = load_data("mnist", preprocess=preprocess(1, 28), data_root=shared_data, download=False)
    assert (len(data.dataset), data.split) == (10_000, "test")
    image, label = data.dataset[0]
    assert image.shape == (1, 28, 28)
    assert label == 7
    assert len(data.classes or ()) == 10


NAMED = ["mnist", "fashion-mnist", "kmnist", "usps", "cifar10", "cifar100", "svhn", "stl10"]


@pytest.mark.parametrize("name", NAMED)
def test_an_absent_set_that_may_not_be_downloaded(tmp_path: Path, name: str) -> None:
    with pytest.raises(FailureError, match=f"{name} is not in .*data_root='DIR', or allow"):
        load_data(name, preprocess=preprocess(), data_root=tmp_path, download=False)


@pytest.mark.parametrize("name", NAMED)
def test_no_network_for_a_set(
    tmp_path: Path, no_network: None, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    words = f"{name} is not in .* cannot be downloaded.*data_root='DIR'"
    with pytest.raises(FailureError, match=words) as caught:
        load_data(name, preprocess=preprocess(), data_root=tmp_path / "new")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_the_default_folder_is_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", str(tmp_path))
    with pytest.raises(FailureError, match=f"mnist is not in {tmp_path}/data"):
        load_data("mnist", preprocess=preprocess(), download=False)
