"""Weights files: read without running code, fitted completely or refused with the keys."""

import argparse
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

from secateurs.checkpoint import plan_pruning
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo.weights_file import fit_weights, is_file, read_weights


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)


class Boom:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("boom"),))


def load_into(model: nn.Module, file: Path) -> nn.Module:
    fit_weights(model, read_weights(file), file)
    return model


def assert_same(model: nn.Module, state: dict) -> None:
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())


def test_safetensors(tmp_path: Path) -> None:
    state = net().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert_same(load_into(net(), tmp_path / "w.safetensors"), state)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".th", ".PTH", ""])
@pytest.mark.parametrize("nest", [None, "state_dict", "model", "state_dict_ema", "model_ema"])
def test_nested_checkpoints(tmp_path: Path, suffix: str, nest: str | None) -> None:
    state = net().state_dict()
    file = tmp_path / f"w{suffix}"
    args = argparse.Namespace(lr=0.1)
    torch.save({nest: state, "epoch": 3, "args": args} if nest else state, file)
    assert_same(load_into(net(), file), state)


def test_averaged_weights_come_first_as_in_timm(tmp_path: Path) -> None:
    plain, averaged = net().state_dict(), net().state_dict()
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "w.pth")
    assert_same(load_into(net(), tmp_path / "w.pth"), averaged)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_prefixes_are_removed(tmp_path: Path, prefix: str) -> None:
    state = net().state_dict()
    torch.save({"state_dict": {prefix + k: v for k, v in state.items()}}, tmp_path / "w.pth")
    assert_same(load_into(net(), tmp_path / "w.pth"), state)


def test_weights_and_masks_of_torch_prune_are_multiplied(tmp_path: Path) -> None:
    model = net()
    name, module = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    prune.l1_unstructured(module, "weight", 0.5)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    state = prune.remove(module, "weight") and model.state_dict()
    assert (state[f"{name}.weight"] == 0).any()
    assert_same(load_into(net(), tmp_path / "w.pth"), state)


def test_a_models_own_module_attribute_is_no_wrapper(tmp_path: Path) -> None:
    state = Wrapped().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    assert_same(load_into(Wrapped(), tmp_path / "w.safetensors"), state)


def test_old_checkpoints_without_batch_counts(tmp_path: Path) -> None:
    state = {k: v for k, v in net().state_dict().items() if "num_batches" not in k}
    save_file(state, tmp_path / "w.safetensors")
    load_into(net(), tmp_path / "w.safetensors")


def test_half_precision_weights_are_widened(tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in net().state_dict().items()}
    save_file(half, tmp_path / "w.safetensors")
    model = load_into(net(), tmp_path / "w.safetensors")
    assert model[0].weight.dtype == torch.float32
    assert torch.equal(model[0].weight, half["0.weight"].float())


def test_keys_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = net().state_dict()
    del state["0.bias"]
    state["2.weight"] = torch.zeros(9, 4)
    state.update({f"head.{i}": torch.zeros(1) for i in range(6)})
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InvalidArgumentError) as caught:
        load_into(net(), tmp_path / "w.pth")
    text = str(caught.value)
    assert "do not fit Sequential: 1 missing (0.bias), 6 unexpected (head.0, head.1, " in text
    assert "head.3 and 2 more)" in text
    assert "1 of another shape (2.weight 9x4 instead of 2x4)" in text
    assert "name the architecture" in text
    assert "\n" not in text


def test_a_file_without_tensors(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(InvalidArgumentError, match="do not fit Sequential: 8 missing"):
        load_into(net(), tmp_path / "w.safetensors")


def test_only_shapes_differ_means_other_classes(tmp_path: Path) -> None:
    state = {**net().state_dict(), "2.weight": torch.zeros(9, 4), "2.bias": torch.zeros(9)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(InvalidArgumentError, match="set num_classes"):
        load_into(net(), tmp_path / "w.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Boom()}, "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InvalidArgumentError, match=r"contains code.*save .* as safetensors"):
        read_weights("w.pth")
    assert not Path("boom").exists()


def test_a_plain_pickle_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pt").write_bytes(pickle.dumps(Boom(), protocol=2))
    with pytest.raises((InvalidArgumentError, FailureError)):
        read_weights("w.pt")
    assert not Path("boom").exists()


def test_a_whole_pickled_model_is_code_and_named(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "w.pth")
    with pytest.raises(InvalidArgumentError, match=r"contains code \(.*Conv2d"):
        read_weights(tmp_path / "w.pth")


def test_torchscript_is_code(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "w.pt")
    with pytest.raises(InvalidArgumentError, match="TorchScript"):
        read_weights(tmp_path / "w.pt")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no weights file"):
        read_weights(tmp_path / "absent.pth")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("content", [b"", b"not weights at all, but long enough to look at"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FailureError, match="damaged") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_pointer_of_git_lfs_is_called_that(tmp_path: Path, name: str) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 102469840\n"
    (tmp_path / name).write_text(text)
    for read in (read_weights, lambda path: plan_pruning(path, 0.5)):
        with pytest.raises(FailureError, match=r"pointer of Git LFS.*run git lfs pull") as caught:
            read(tmp_path / name)
        assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_files_cut_short(tmp_path: Path, name: str) -> None:
    if name.endswith("pth"):
        torch.save(net().state_dict(), tmp_path / name)
    else:
        save_file(net().state_dict(), tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FailureError, match="damaged"):
        read_weights(tmp_path / name)


def test_what_counts_as_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bare").touch()
    for name in ("a.pth", "a.pth.tar", "a.th", "a.PTH", "a.SafeTensors"):
        assert is_file(name)
    assert is_file("dir/weights")
    assert is_file("bare")
    assert not is_file("IMAGENET1K_V2")
    assert not is_file("random")
    assert not is_file(None)
