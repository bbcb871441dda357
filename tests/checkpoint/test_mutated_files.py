"""Files with random changes: the right result, or one of our errors in one short line.

A right result is what pruning gives of the tensors that other libraries read from the same bytes.
"""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from stored_folders import shards
from stored_models import raw
from torch import Tensor, nn

import secateurs as sc
from secateurs.checkpoint import decompress_checkpoint, prune_checkpoint
from secateurs.zoo.suffixes import suffix_of
from secateurs.zoo.weights_file import read_weights

LONGEST = 400
WORDS = (
    b"[", b"]", b"{", b"}", b",", b'"', b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"null", b"NaN",
    b"\\ud800", b"\x00", b"\xff\xff\xff\xff", b"[" * 3000, b"x" * 3000, b"PK\x01\x02",
    b"PK\x05\x06", b"PK\x03\x04", b"cos\nsystem\n", b"\x80\x02", b"\x8a\xff",
    *(bytes([code]) for code in b".RQ(tus0"),
)  # fmt: skip


def mutated(rng: random.Random, whole: bytes, ends: int = 400) -> bytes:
    """The file with one to three changes, most of them near its beginning or its end."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        last = max(len(data) - 1, 0)
        near = rng.choice((min(ends, last), -min(ends, last), last))
        place = rng.randint(0, near) if near >= 0 else rng.randint(last + near, last)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 2:
            del data[place : place + rng.choice((1, 1, 8, 60))]
        elif kind == 3:
            word = rng.choice(WORDS)
            data[place : place + rng.choice((0, len(word)))] = word
        elif kind == 4:
            other = rng.randint(0, last)
            data[place : place + 8] = data[other : other + 8]
        else:
            digits = [i for i in range(len(data[:2000])) if 48 <= data[i] < 58]
            if digits:
                data[rng.choice(digits)] = 48 + rng.randrange(10)
    return bytes(data)


def outcome(work: Callable[[], object]) -> object | None:
    """What it gives; None if it refuses in one short line."""
    try:
        return work()
    except (sc.InvalidArgumentError, sc.FailureError) as error:
        text = str(error)
        assert text.isprintable() and len(text) <= LONGEST, text[:2000]
        assert "weights_only=False" not in text and "weights_only` set to `False" not in text
        return None


def is_right(before: Mapping[str, Tensor], after: Mapping[str, Tensor], pruned: list[str]) -> bool:
    """Whether half of the weights became zero, the smallest, and all else stayed."""
    assert before.keys() == after.keys()
    for name in before.keys() - set(pruned):
        assert before[name].dtype == after[name].dtype
        assert raw(before[name]) == raw(after[name]), name
    old = torch.cat([before[name].double().flatten() for name in pruned])
    new = torch.cat([after[name].double().flatten() for name in pruned])
    threshold = old.abs().sort().values[round(0.5 * len(old)) - 1]
    stayed = new == old
    assert bool((new[~stayed] == 0).all() and stayed[old.abs() > threshold].all())
    return int((new == 0).sum()) >= round(0.5 * len(old))


def seeds() -> dict[str, bytes]:
    """Tiny files of every kind, by name."""
    torch.manual_seed(0)
    state = {
        "a.weight": torch.randn(4, 6),
        "b.weight": torch.randn(2, 3, 3, 3),
        "b.bias": torch.ones(2),
    }
    torch.save(state, "flat.pt")
    torch.save({"model": state, "epoch": 3, "loss": torch.tensor(1.0)}, "nested.pt")
    torch.save(state, "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, "plain.safetensors", {"format": "pt"})
    state["q.weight"] = torch.randn(8, 8).to(torch.float8_e4m3fn)
    save_file(state | {"q.weight_scale": torch.rand(8, 1)}, "scaled.safetensors")
    save_file({"a.weight": torch.randn(40, 16)}, "large.safetensors")
    prune_checkpoint("large.safetensors", "small.safetensors.zst", 0.7, compress=True)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Linear(4, 3))
    sc.select(model, 0.5, granularity="filter").draw().save("masks.safetensors")
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def load(path: str) -> dict[str, Tensor]:
    """As the libraries that wrote the formats read them."""
    if path.endswith(".safetensors"):
        return load_file(path)
    found = torch.load(path, weights_only=True)
    found = found.get("model", found)
    return {k: v for k, v in found.items() if isinstance(k, str) and isinstance(v, Tensor)}


def try_pruning(name: str) -> bool:
    suffix = Path(name).suffix
    done = outcome(lambda: prune_checkpoint(f"in{suffix}", f"out{suffix}", 0.5))
    if suffix == ".pt":
        outcome(lambda: read_weights("in.pt"))
    if done is None:
        assert not Path(f"out{suffix}").exists()
        return False
    if name != "scaled.safetensors":
        pruned = [one.name for one in done.weights]
        assert is_right(load(f"in{suffix}"), load(f"out{suffix}"), pruned)
    Path(f"out{suffix}").unlink()
    return True


def try_decompressing(name: str) -> bool:
    loaded = outcome(lambda: sc.load_checkpoint("in.safetensors.zst"))
    done = outcome(lambda: decompress_checkpoint("in.safetensors.zst", "out.safetensors"))
    if done is not None:
        found = load("out.safetensors")
        assert loaded is not None and all(raw(found[n]) == raw(loaded[n]) for n in found)
        Path("out.safetensors").unlink()
    return done is not None


def try_masks(name: str) -> bool:
    masks = outcome(lambda: sc.Masks.load("in.safetensors"))
    if masks is None:
        return False
    for keep in masks.values():
        assert keep.dtype == torch.bool
    return 0 <= masks.sparsity <= 1


TRIALS = {
    "flat.pt": (try_pruning, 80),
    "nested.pt": (try_pruning, 50),
    "old.pt": (try_pruning, 80),
    "plain.safetensors": (try_pruning, 80),
    "scaled.safetensors": (try_pruning, 50),
    "small.safetensors.zst": (try_decompressing, 60),
    "masks.safetensors": (try_masks, 80),
}


@pytest.mark.parametrize("name", TRIALS)
def test_mutated_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    whole = seeds()[name]
    trial, count = TRIALS[name]
    target = Path(f"in{suffix_of(name)}")
    target.write_bytes(whole)
    assert trial(name) is (name != "old.pt")  # that format is refused, with the remedy
    rng = random.Random(0)
    refused = 0
    for _ in range(count):
        target.write_bytes(mutated(rng, whole))
        refused += not trial(name)
    assert refused > count // 4


def test_mutated_indexes_and_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shards(Path("in"))
    state = sc.load_checkpoint("in")
    path = Path("in/model.safetensors.index.json")
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(50):
        path.write_bytes(mutated(rng, whole, len(whole)))
        done = outcome(lambda: prune_checkpoint("in", "out", 0.5))
        if done is not None:
            pruned = [one.name for one in done.weights]
            assert is_right(state, sc.load_checkpoint("out"), pruned)
            json.loads(Path("out/model.safetensors.index.json").read_bytes())
            for file in sorted(Path("out").rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            Path("out").rmdir()
