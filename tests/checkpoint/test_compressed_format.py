"""Compressed files: smaller, readable with plain safetensors, and the same bits again."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from stored_models import DTYPES, PRUNES, Net, assert_same, raw, to_file

import secateurs as sc
from secateurs.checkpoint import decompress_checkpoint, prune_checkpoint

MIXED = (torch.float32, torch.bfloat16, torch.float8_e5m2)


@PRUNES
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("p_prune", [0.0, 0.02, 0.5, 0.9, 1.0])
def test_it_gives_back_the_pruned_weights_bit_for_bit(
    tmp_path: Path,
    p_prune: float,
    granularity: str,
    prune,
) -> None:
    source, dense = tmp_path / "in.safetensors", tmp_path / "dense.safetensors"
    small_file, back = tmp_path / "small.safetensors", tmp_path / "back.safetensors"
    state = Net(MIXED).state_dict()
    state["odd"] = torch.tensor([1, 2, 3], dtype=torch.int8)
    state["norm.weight"] = torch.tensor([-0.0, float("nan"), 0.0, 1, 2, 3, 4])
    to_file(source, state, {"format": "pt", "own": "words"})
    options = {"granularity": granularity, "seed": 1}
    prune(source, dense, p_prune, 0.7, **options)
    prune(source, small_file, p_prune, 0.7, compress=True, **options)
    assert_same(sc.load_checkpoint(small_file), load_file(dense))
    decompress_checkpoint(small_file, back)
    assert back.read_bytes() == dense.read_bytes()


@pytest.mark.parametrize(("p_prune", "ratio"), [(0.5, 0.532), (0.9, 0.132)])
def test_it_is_as_small_as_promised(tmp_path: Path, p_prune: float, ratio: float) -> None:
    source = tmp_path / "in.safetensors"
    save_file({"fc.weight": torch.randn(1000, 500)}, source)
    small = tmp_path / "small.safetensors"
    summary = prune_checkpoint(source, small, p_prune, compress=True)
    assert small.stat().st_size == summary.size < ratio * source.stat().st_size


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_file_grows_beyond_its_header(tmp_path: Path, dtype: torch.dtype) -> None:
    source, small = tmp_path / "in.safetensors", tmp_path / "small.safetensors"
    to_file(source, {"fc.weight": torch.randn(64, 64).to(dtype)})
    prune_checkpoint(source, small, 0.01, compress=True)
    assert small.stat().st_size < source.stat().st_size + 500
    assert sc.load_checkpoint(small)["fc.weight"].dtype == dtype


def test_zeros_of_either_sign_and_dense_tensors_among_compressed_ones(tmp_path: Path) -> None:
    # Ties run through a tensor that stays dense, so it is gone through twice.
    first = torch.full((8, 100), 0.5)
    first[0, :50] = -0.0
    state = {
        "a.weight": first,
        "b.weight": torch.cat([torch.ones(800), torch.full((8,), 0.5)]).view(8, 101),
        "c.weight": torch.full((8, 100), -0.5),
    }
    source, small = to_file(tmp_path / "in.safetensors", state), tmp_path / "small.safetensors"
    dense = tmp_path / "dense.safetensors"
    p_prune = 900 / 2408
    prune_checkpoint(source, dense, p_prune)
    prune_checkpoint(source, small, p_prune, compress=True)
    with safe_open(small, "pt") as file:
        assert "b.weight" in file.keys() and "a.weight" not in file.keys()  # noqa: SIM118
    assert_same(sc.load_checkpoint(small), load_file(dense))


def test_values_that_are_not_plus_zero_are_kept(tmp_path: Path) -> None:
    weight = torch.zeros(100, 100)
    weight[3, 4], weight[5, 6] = -0.0, 1e-45
    source = to_file(tmp_path / "in.safetensors", {"fc.weight": weight})
    small = tmp_path / "small.safetensors"
    prune_checkpoint(source, small, 0.0, compress=True)
    assert raw(sc.load_checkpoint(small)["fc.weight"]) == raw(weight)
    assert small.stat().st_size < 2000


def test_the_page_on_the_format_is_enough_to_read_it(tmp_path: Path) -> None:
    """With plain safetensors and numpy, as the documentation says it."""
    weight = torch.randn(50, 33)
    source = to_file(tmp_path / "in.safetensors", {"fc.weight": weight})
    prune_checkpoint(source, tmp_path / "small.safetensors", 0.7, compress=True)
    with safe_open(tmp_path / "small.safetensors", "numpy") as file:
        about = json.loads(file.metadata()["secateurs.compressed"])
        assert about["version"] == 1
        for name, shape in about["tensors"].items():
            bits = file.get_tensor(f"{name}:bitmask")
            values = file.get_tensor(f"{name}:values")
            count = int(np.prod(shape))
            there = np.unpackbits(bits, bitorder="little", count=count).astype(bool)
            full = np.zeros(count, values.dtype)
            full[there] = values[: there.sum()]
            found = full.reshape(shape)
    threshold = weight.abs().flatten().kthvalue(round(0.7 * weight.numel())).values
    assert (found == (weight * (weight.abs() > threshold)).numpy()).all()


def test_all_values_are_aligned(tmp_path: Path) -> None:
    dtypes = (torch.float64, torch.float16, torch.float32)
    source = to_file(tmp_path / "in.safetensors", Net(dtypes).state_dict())
    small = tmp_path / "small.safetensors"
    prune_checkpoint(source, small, 0.5, compress=True)
    from secateurs.checkpoint.header import read_header

    for entry in read_header(small).entries:
        assert entry.start % entry.itemsize == 0, entry


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        ('{"version":2,"tensors":{}}', "install a newer secateurs"),
        ('{"version":1}', "names no tensors"),
        ("[]", "damaged"),
        ('{"version":1,"tensors":{"other":[2]}}', "lacks its bits"),
        ('{"version":1,"tensors":{"fc.weight":[8,9]}}', "another shape"),
        ('{"version":1,"tensors":{"fc.weight":[]}}', "not as many bits"),
        ('{"version":1,"tensors":{"fc.weight":[1000000,1000000]}}', "another shape"),
        ('{"version":1,"tensors":{"fc.weight":[-8,-8]}}', "another shape"),
        ('{"version":1,"tensors":{"fc.weight":8}}', "has no shape"),
    ],
)
def test_metadata_that_lies_is_one_line(tmp_path: Path, broken: str, complaint: str) -> None:
    tensors = {
        "fc.weight:bitmask": torch.full((8,), 255, dtype=torch.uint8),
        "fc.weight:values": torch.ones(64),
    }
    path = tmp_path / "small.safetensors"
    save_file(tensors, path, {"secateurs.compressed": broken})
    with pytest.raises(sc.FailureError, match=complaint) as caught:
        sc.load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_more_bits_than_values_are_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    tensors = {
        "fc.weight:bitmask": torch.full((8,), 255, dtype=torch.uint8),
        "fc.weight:values": torch.ones(62),
    }
    about = {"secateurs.compressed": '{"version":1,"tensors":{"fc.weight":[8,8]}}'}
    save_file(tensors, path, about)
    with pytest.raises(sc.FailureError, match="not as many bits as values"):
        sc.load_checkpoint(path)
    with pytest.raises(sc.FailureError, match="not as many bits as values"):
        decompress_checkpoint(path, tmp_path / "back.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["small.safetensors"]


def test_compressing_twice_or_expanding_what_is_not_compressed(tmp_path: Path) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    small = tmp_path / "small.safetensors"
    prune_checkpoint(source, small, 0.5, compress=True)
    with pytest.raises(sc.InvalidArgumentError, match="is compressed: run secateurs prune --decom"):
        prune_checkpoint(small, tmp_path / "again.safetensors", 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="is not compressed"):
        decompress_checkpoint(source, tmp_path / "again.safetensors")


def test_names_of_its_own_are_never_shadowed(tmp_path: Path) -> None:
    state = {"fc.weight": torch.zeros(100, 100), "fc.weight:values": torch.ones(3)}
    source = to_file(tmp_path / "in.safetensors", state)
    with pytest.raises(sc.InvalidArgumentError, match=r"called fc\.weight:values"):
        prune_checkpoint(source, tmp_path / "small.safetensors", 0.5, compress=True)
