"""Where the weights are in what a training saved."""

from pathlib import Path

import pytest
import torch

from secateurs import InvalidArgumentError
from secateurs.checkpoint import load_checkpoint, plan_pruning, prune_checkpoint
from secateurs.zoo.weights_file import read_weights

OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(4, 4)}}, "param_groups": [{"lr": 0.1}]}
RNG = {"cpu": torch.zeros(16, dtype=torch.uint8)}


def state(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.full((4, 4), float(value)), "fc.bias": torch.zeros(4)}


ONE_SET = {
    "model_state_dict": {"model_state_dict": state(), "loss": torch.tensor(0.5), "epoch": 3},
    "net": {"net": state(), "acc": 91.2, "epoch": 3},
    "state_dict_ema": {"state_dict_ema": state(), "optimizer": OPTIMIZER},
    "model": {"model": state(), "optimizer": OPTIMIZER, "lr_scheduler": {"x": torch.eye(2)}},
    "ema": {"ema": state(), "step": 5},
    "lightning": {
        "state_dict": state(),
        "optimizer_states": [OPTIMIZER],
        "callbacks": {"ModelCheckpoint": {"best": torch.eye(3)}},
        "loops": {"fit_loop": {"state_dict": {}}},
    },
    "deepspeed": {"module": state(), "optimizer": None, "buffer_names": ["a"]},
    "two levels": {"state": {"model": state()}, "rng": RNG, "optim": OPTIMIZER},
    "a batch beside it": {"net": state(), "images": torch.zeros(2, 3, 4, 4)},
    "a loss with weights": {"net": state(), "criterion": {"center": torch.zeros(1, 4)}},
    "the same twice": (lambda same: {"model": same, "state_dict": same})(state()),
    "only biases": {"net": {"bias": torch.zeros(4)}, "acc": torch.tensor(1.0)},
}


@pytest.mark.parametrize("kind", ONE_SET)
def test_the_one_set_of_weights_is_found(tmp_path: Path, kind: str) -> None:
    torch.save(ONE_SET[kind], tmp_path / "in.pt")
    expected = {"bias": torch.zeros(4)} if kind == "only biases" else state()
    found = read_weights(tmp_path / "in.pt")
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("kind", [kind for kind in ONE_SET if kind != "only biases"])
def test_it_is_pruned_where_it_is(tmp_path: Path, kind: str) -> None:
    torch.save(ONE_SET[kind], tmp_path / "in.pt")
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)
    whole = torch.load(tmp_path / "out.pt", weights_only=True)
    assert whole.keys() == ONE_SET[kind].keys()
    assert int((load_checkpoint(tmp_path / "out.pt")["fc.weight"] == 0).sum()) == 8


SEVERAL = {
    "averaged and not": {"state_dict": state(1), "state_dict_ema": state(2)},
    "another name": {"model": state(1), "ema": state(2)},
    "adversaries": {"generator": state(1), "discriminator": state(2)},
    "inside": {"state": {"student": state(1), "teacher": state(2)}},
    "at the top too": {**state(1), "ema": state(2)},
}
KEYS = {
    "averaged and not": ("state_dict", "state_dict_ema"),
    "another name": ("model", "ema"),
    "adversaries": ("generator", "discriminator"),
    "inside": ("state.student", "state.teacher"),
    "at the top too": (".", "ema"),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_of_several_sets_none_is_pruned_by_chance(tmp_path: Path, kind: str) -> None:
    torch.save(SEVERAL[kind], tmp_path / "in.pt")
    first, second = KEYS[kind]
    with pytest.raises(InvalidArgumentError) as caught:
        prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5)
    assert f"'{first}', '{second}'" in str(caught.value) and "write key=" in str(caught.value)
    if kind != "averaged and not":  # there a sweep takes the averaged ones, as timm does
        with pytest.raises(InvalidArgumentError, match=r"several sets .* save one alone, with"):
            read_weights(tmp_path / "in.pt")
    prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5, key=second)
    for key, zeros in ((first, 0), (second, 8)):
        weight = load_checkpoint(tmp_path / "out.pt", key=key)["fc.weight"]
        assert int((weight == 0).sum()) == zeros


def test_a_key_without_weights(tmp_path: Path) -> None:
    torch.save({"net": state(), "epoch": 3}, tmp_path / "in.pt")
    with pytest.raises(InvalidArgumentError, match=r"under key='model': weights are under 'net'"):
        plan_pruning(tmp_path / "in.pt", 0.5, key="model")


WITHOUT = {
    "an optimizer": (OPTIMIZER, "the state of an optimizer"),
    "a scheduler": ({"last_epoch": 3}, "holds no weights, only 'last_epoch'"),
    "a random generator": ({"rng_state": RNG}, "holds no weights, only 'rng_state'"),
    "an optimizer and more": ({"optimizer": OPTIMIZER, "epoch": 3}, "only 'optimizer', 'epoch'"),
    "a tensor": (torch.zeros(2, 2), "holds a tensor, not weights"),
    "a list": ([torch.zeros(2)], "holds a list"),
    "nothing": ({}, "is empty; save"),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_what_holds_no_weights_is_named(tmp_path: Path, kind: str) -> None:
    saved, complaint = WITHOUT[kind]
    torch.save(saved, tmp_path / "in.pt")
    for read in (read_weights, lambda path: plan_pruning(path, 0.5)):
        with pytest.raises(InvalidArgumentError, match=complaint):
            read(tmp_path / "in.pt")


def test_mappings_that_hold_each_other_are_gone_through_once(tmp_path: Path) -> None:
    """Else a few kilobytes would take for ever."""
    inner: dict[str, object] = {"fc.weight": torch.ones(4, 4)}
    for _ in range(2):
        inner = {f"k{i}": inner for i in range(2000)}
    torch.save(inner, tmp_path / "in.pt")
    assert list(read_weights(tmp_path / "in.pt")) == ["fc.weight"]
