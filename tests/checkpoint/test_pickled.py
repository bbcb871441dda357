"""Files of torch.save: found by their bytes, and every other byte kept."""

import pickle
import zipfile
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, load_model, save_file
from stored_models import Net, assert_same
from torch import nn

import secateurs as sc
from secateurs.checkpoint import plan_pruning, prune_checkpoint
from secateurs.zoo.weights_file import read_weights


class Tied(nn.Module):
    """A head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".th", ".PTH", ""])
def test_it_is_pruned_as_its_model_is(tmp_path: Path, suffix: str) -> None:
    model = Net((torch.float32, torch.bfloat16, torch.float8_e4m3fn))
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    torch.save(model.state_dict(), source)
    prune_checkpoint(source, output, 0.5, 0.7, seed=1)
    sc.global_prune(model, 0.5, 0.7, seed=1)
    assert_same(torch.load(output, weights_only=True), model.state_dict())
    assert_same(torch.load(output, weights_only=True, mmap=True), model.state_dict())
    assert output.stat().st_size == source.stat().st_size


def test_its_checksums_are_right(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "in.pt")
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)
    assert zipfile.ZipFile(tmp_path / "out.pt").testzip() is None


def test_what_lies_around_the_weights_stays(tmp_path: Path) -> None:
    model = Net()
    optimizer = {"step": 3, "moments": [torch.ones(3), torch.zeros(2)]}
    saved = {"epoch": 7, "args": Namespace(lr=0.1), "model": model.state_dict(), "opt": optimizer}
    torch.save(saved, tmp_path / "in.pt")
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "in.pt", 0.5)
    with torch.serialization.safe_globals([Namespace]):
        found = torch.load(tmp_path / "in.pt", weights_only=True)
    assert found["epoch"] == 7 and found["args"].lr == 0.1
    assert torch.equal(found["opt"]["moments"][0], torch.ones(3))
    assert_same(found["model"], sc.global_prune(model, 0.5).state_dict())


def test_tied_weights_are_pruned_once(tmp_path: Path) -> None:
    model = Tied()
    torch.save(model.state_dict(), tmp_path / "in.pt")
    plan = plan_pruning(tmp_path / "in.pt", 0.5)
    assert [w.entry.name for w in plan.weights] == ["body.weight"]  # an embedding is no layer
    both = {"include": ["*", "head"]}
    plan = plan_pruning(tmp_path / "in.pt", 0.5, **both)
    assert [w.entry.names for w in plan.weights] == [
        ("embed.weight", "head.weight"),
        ("body.weight",),
    ]
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5, **both)
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.safetensors", 0.5, **both)
    sc.global_prune(model, 0.5, **both)
    assert_same(torch.load(tmp_path / "out.pt", weights_only=True), model.state_dict())
    assert "head.weight" not in load_file(tmp_path / "out.safetensors")
    assert_same(sc.load_checkpoint(tmp_path / "out.safetensors"), model.state_dict())
    # Names that share a tensor stand in the metadata of such a file, and choose as well.
    for options, names in (({}, ["body.weight"]), (both, ["body.weight", "embed.weight"])):
        again = plan_pruning(tmp_path / "out.safetensors", 0.5, **options)
        assert sorted(w.entry.name for w in again.weights) == names
    other = Tied()
    load_model(other, tmp_path / "out.safetensors")
    assert_same(other.state_dict(), model.state_dict())


@pytest.mark.parametrize(
    ("name", "options"), [("out.safetensors", {}), ("out.safetensors.zst", {"compress": True})]
)
def test_a_tensor_that_safetensors_cannot_hold_is_not_lost(
    tmp_path: Path, name: str, options: dict[str, bool]
) -> None:
    state = {"fc.weight": torch.randn(4, 4), "phase": torch.randn(3, dtype=torch.complex128)}
    torch.save(state, tmp_path / "in.pt")
    with pytest.raises(sc.InvalidArgumentError, match=r"no dtype for 'phase' .*write a \.pt file"):
        prune_checkpoint(tmp_path / "in.pt", tmp_path / name, 0.5, **options)
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)
    assert torch.equal(sc.load_checkpoint(tmp_path / "out.pt")["phase"], state["phase"])


def test_views_that_share_no_element(tmp_path: Path) -> None:
    flat = torch.randn(200)
    state = {"a.weight": flat[:100].view(10, 10), "b.weight": flat[100:].view(10, 10)}
    torch.save(state, tmp_path / "in.pt")
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)
    found = torch.load(tmp_path / "out.pt", weights_only=True)
    threshold = flat.abs().kthvalue(100).values
    assert torch.equal(found["a.weight"].flatten(), (flat * (flat.abs() > threshold))[:100])
    assert torch.equal(found["b.weight"].flatten(), (flat * (flat.abs() > threshold))[100:])


def test_views_that_share_some_elements_are_refused(tmp_path: Path) -> None:
    flat = torch.randn(150)
    state = {"a.weight": flat[:100].view(10, 10), "b.weight": flat[50:].view(10, 10)}
    torch.save(state, tmp_path / "in.pt")
    for exclude in (None, "b"):
        with pytest.raises(sc.InvalidArgumentError, match=r"a\.weight and b\.weight share part"):
            prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5, exclude=exclude)


@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_another_order_of_memory_stays_and_changes_nothing(
    tmp_path: Path, granularity: str
) -> None:
    """As models trained in ``channels_last`` are saved, or weights that were transposed."""
    model = Net((torch.bfloat16,)).to(memory_format=torch.channels_last)
    model.linear.weight = nn.Parameter(model.linear.weight.detach().t().contiguous().t())
    model.embed.weight = nn.Parameter(model.embed.weight.detach().t().contiguous().t())
    torch.save(model.state_dict(), tmp_path / "in.pt")
    for name, options in (
        ("out.pt", {}),
        ("out.safetensors", {}),
        ("small.safetensors.zst", {"compress": True}),
    ):
        prune_checkpoint(
            tmp_path / "in.pt",
            tmp_path / name,
            0.5,
            0.7,
            seed=1,
            granularity=granularity,
            **options,
        )
        sc.global_prune(model, 0.5, 0.7, seed=1, granularity=granularity)
        found = sc.load_checkpoint(tmp_path / name)
        assert_same(found, model.state_dict())
        if name == "out.pt":
            for key, tensor in model.state_dict().items():
                assert found[key].stride() == tensor.stride(), key


def test_gaps_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.randn(4, 10)[:, ::2]}, tmp_path / "in.pt")
    with pytest.raises(sc.InvalidArgumentError, match=r"fc\.weight in .* has gaps"):
        prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)


UNUSUAL = {
    "sparse": (torch.eye(4).to_sparse(), "holds sparse tensors, which cannot be pruned in a file"),
    "a csr matrix": (torch.eye(4).to_sparse_csr(), "holds sparse tensors"),
    "without values": (torch.empty(4, 4, device="meta"), "was saved on the meta device"),
    "expanded": (torch.ones(1, 4).expand(4, 4), "in .* has gaps"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_no_array_are_not_called_damaged(tmp_path: Path, kind: str) -> None:
    tensor, complaint = UNUSUAL[kind]
    torch.save({"a.weight": tensor, "b.weight": torch.ones(4, 4)}, tmp_path / "in.pt")
    with pytest.raises(sc.InvalidArgumentError, match=complaint):
        prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)


def test_a_suffix_of_the_other_format(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.ones(4, 4)}, tmp_path / "in.safetensors")
    save_file({"a.weight": torch.ones(4, 4)}, tmp_path / "in.pt")
    for name, suffix in (("in.safetensors", r"\.pt"), ("in.pt", r"\.safetensors")):
        for read in (read_weights, lambda path: plan_pruning(path, 0.5)):
            with pytest.raises(sc.InvalidArgumentError, match=f"give it the suffix {suffix}"):
                read(tmp_path / name)


def test_the_format_before_zip_is_refused_with_the_remedy(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "in.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(sc.InvalidArgumentError, match=r"before version 1\.6"):
        prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)


class Evil:
    def __reduce__(self):
        return print, ("code ran",)


@pytest.mark.parametrize("swapped", [("data/1", "data/2"), ("data/0", "data/1"), None])
def test_a_file_that_was_packed_again_is_refused(tmp_path: Path, swapped) -> None:
    path = tmp_path / "in.pt"
    torch.save({f"{name}.weight": torch.randn(8, 8) for name in "abc"}, path)
    if swapped:  # in equal sizes, so that each is still where a tensor is looked for
        first, second = (name.encode() for name in swapped)
        content = path.read_bytes().replace(first, b"data/X").replace(second, first)
        path.write_bytes(content.replace(b"data/X", second))
    else:
        with zipfile.ZipFile(path) as old:
            records = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in records.items():
                new.writestr(name, content)
    assert len(read_weights(path)) == 3
    with pytest.raises(sc.SecateursError, match="packed again"):
        prune_checkpoint(path, tmp_path / "out.pt", 0.5)


def test_code_is_never_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a.weight": torch.ones(3, 3), "b": Evil()}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps({"a": Evil()}))
    for name in ("zip.pt", "bare.pt"):
        with pytest.raises((sc.InvalidArgumentError, sc.FailureError)):
            prune_checkpoint(tmp_path / name, tmp_path / "out.pt", 0.5)
    assert "code ran" not in capsys.readouterr().out
    assert not (tmp_path / "out.pt").exists()


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    torch.save(Net().state_dict(), tmp_path / "in.pt")
    whole = (tmp_path / "in.pt").read_bytes()
    broken = tmp_path / "broken.pt"
    for place in range(0, len(whole), 397):
        for data in (whole[:place], whole[:place] + b"\xff" + whole[place + 1 :]):
            broken.write_bytes(data)
            try:
                prune_checkpoint(broken, tmp_path / "out.pt", 0.5)
            except (sc.InvalidArgumentError, sc.FailureError) as error:
                assert "\n" not in str(error)
