"""Compressed files: zstd streams of what pruning writes without compression."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import zstandard
from safetensors.torch import load_file, save, save_file
from stored_models import DTYPES, PRUNES, Net, assert_same, to_file

import secateurs as sc
from secateurs.checkpoint import Summary, decompress_checkpoint, prune_checkpoint

MIXED = (torch.float32, torch.bfloat16, torch.float8_e5m2)


@PRUNES
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("p_prune", [0.0, 0.5, 1.0])
def test_the_stream_holds_the_pruned_file_byte_for_byte(
    tmp_path: Path, p_prune: float, granularity: str, prune: Callable[..., Summary]
) -> None:
    source, dense = tmp_path / "in.safetensors", tmp_path / "dense.safetensors"
    small_file, back = tmp_path / "small.safetensors.zst", tmp_path / "back.safetensors"
    state = Net(MIXED).state_dict()
    state["odd"] = torch.tensor([1, 2, 3], dtype=torch.int8)
    state["norm.weight"] = torch.tensor([-0.0, float("nan"), 0.0, 1, 2, 3, 4])
    state["none"] = torch.empty(0, 3)
    to_file(source, state, {"format": "pt", "own": "words"})
    options = {"granularity": granularity, "seed": 1}
    prune(source, dense, p_prune, 0.7, **options)
    summary = prune(source, small_file, p_prune, 0.7, compress=True, **options)
    assert summary.size == small_file.stat().st_size and summary.names == (small_file.name,)
    contents = zstandard.ZstdDecompressor().stream_reader(small_file.read_bytes()).read()
    assert contents == dense.read_bytes()
    assert_same(sc.load_checkpoint(small_file), load_file(dense))
    decompress_checkpoint(small_file, back)
    assert back.read_bytes() == dense.read_bytes()


@pytest.mark.parametrize("dtypes", [DTYPES, DTYPES[::-1]], ids=["narrowing", "widening"])
def test_a_file_of_torch_save_with_ties_in_another_order_than_the_new_file_has(
    tmp_path: Path, dtypes: tuple[torch.dtype, ...]
) -> None:
    """The widest numbers come first there, ties go to what comes first in the old file."""
    state = {f"{i}.weight": torch.full((6, 5), 0.5).to(d) for i, d in enumerate(dtypes)}
    source, dense = tmp_path / "in.pt", tmp_path / "dense.safetensors"
    torch.save(state, source)
    for p_prune in (0.3, 0.8):
        small = tmp_path / f"{p_prune}.safetensors.zst"
        prune_checkpoint(source, dense, p_prune)
        found = prune_checkpoint(source, small, p_prune, compress=True)
        assert sum(weight.pruned for weight in found.weights) == round(p_prune * 30 * len(dtypes))
        assert_same(sc.load_checkpoint(small), load_file(dense))


def test_sizes_in_the_middle_of_what_is_written_on_threads(tmp_path: Path) -> None:
    """Several jobs of zstd, and tensors whose blocks end anywhere in them."""
    torch.manual_seed(0)
    state = {f"{i}.weight": torch.randn(1000, 701 + i) for i in range(3)}
    source = to_file(tmp_path / "in.safetensors", state)
    small = tmp_path / "small.safetensors.zst"
    prune_checkpoint(source, small, 0.9, compress=True)
    assert small.stat().st_size < 0.23 * source.stat().st_size
    prune_checkpoint(source, tmp_path / "dense.safetensors", 0.9)
    assert_same(sc.load_checkpoint(small), load_file(tmp_path / "dense.safetensors"))


def test_the_zstd_tool_opens_it(tmp_path: Path, zstd: str) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    prune_checkpoint(source, tmp_path / "out.safetensors.zst", 0.5, compress=True)
    subprocess.run([zstd, "-q", "-d", "out.safetensors.zst"], cwd=tmp_path, check=True)
    found = load_file(tmp_path / "out.safetensors")
    subprocess.run([zstd, "-q", "out.safetensors", "-o", "o.safetensors.zst"], cwd=tmp_path)
    assert_same(sc.load_checkpoint(tmp_path / "o.safetensors.zst"), found)


@pytest.fixture
def zstd() -> str:
    import shutil

    found = shutil.which("zstd")
    if found is None:
        pytest.skip("needs the zstd tool")
    return found


def test_what_others_wrote_without_a_size_or_a_checksum(tmp_path: Path) -> None:
    state = Net().state_dict()
    whole = save(state)
    for options in ({"write_content_size": False}, {"write_checksum": True}, {"level": 19}):
        path = tmp_path / "in.safetensors.zst"
        path.write_bytes(zstandard.ZstdCompressor(**options).compress(whole))
        assert_same(sc.load_checkpoint(path), state)


@pytest.mark.parametrize(
    ("output", "options", "complaint"),
    [
        ("small.safetensors", {"compress": True}, r"write .*small\.safetensors\.zst"),
        ("small.pt", {"compress": True}, r"write .*small\.safetensors\.zst"),
        ("small.safetensors.zst", {}, r"or write .*small\.safetensors$"),
    ],
)
def test_names_that_say_something_else(
    tmp_path: Path, output: str, options: dict[str, bool], complaint: str
) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    with pytest.raises(sc.InvalidArgumentError, match=complaint):
        prune_checkpoint(source, tmp_path / output, 0.5, **options)


def test_compressing_twice_or_decompressing_what_is_not_compressed(tmp_path: Path) -> None:
    source = to_file(tmp_path / "in.safetensors", Net().state_dict())
    small = tmp_path / "small.safetensors.zst"
    prune_checkpoint(source, small, 0.5, compress=True)
    with pytest.raises(sc.InvalidArgumentError, match="is compressed: call decompress_checkpoint"):
        prune_checkpoint(small, tmp_path / "again.safetensors", 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="is not compressed"):
        decompress_checkpoint(source, tmp_path / "again.safetensors")


def test_the_format_before_zstd_is_refused_not_taken_for_tensors(tmp_path: Path) -> None:
    tensors = {"fc.weight:bitmask": torch.zeros(8, dtype=torch.uint8)}
    save_file(tensors, tmp_path / "old.safetensors", {"secateurs.compressed": "{}"})
    with pytest.raises(sc.InvalidArgumentError, match="before it wrote zstd"):
        sc.load_checkpoint(tmp_path / "old.safetensors")
