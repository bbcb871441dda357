"""A surrogate computes what its model computes under the masks of its draw."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from surrogate_cases import blocks, images, input_gradient, oracle
from torch import nn

import secateurs as sc
from secateurs.pruning import PRUNE_TYPES
from secateurs.surrogates import dwp, mup


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    after = model.state_dict()
    return list(after) == list(before) and all(torch.equal(after[n], before[n]) for n in before)


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
def test_each_call_is_the_model_under_the_masks_of_its_draw(
    prune_type: str, granularity: str
) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(
        model, 0.6, 0.5, prune_type=prune_type, granularity=granularity, seed=3
    )
    for _ in range(3):
        logits, gradient = surrogate(x), input_gradient(surrogate, x)
        wanted = oracle(model, surrogate.masks, prune_type)
        assert torch.equal(gradient, input_gradient(wanted, x))
        with surrogate.frozen():
            logits = surrogate(x)
        assert torch.equal(logits, wanted(x))


def test_the_outputs_of_gradient_mode_are_those_of_the_model() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type="gradient")
    assert torch.equal(surrogate(x), model(x))
    assert not torch.equal(input_gradient(surrogate, x), input_gradient(model, x))


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_the_model_is_as_it_was_also_after_an_error(prune_type: str) -> None:
    model, x = blocks(), images()
    before, modules = values(model), [type(m) for m in model.modules()]
    parameters = {name: id(p) for name, p in model.named_parameters()}
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    surrogate(x).sum().backward()
    with pytest.raises(RuntimeError):
        surrogate(torch.zeros(1, 4, 8, 8))
    assert same(model, before)
    assert {name: id(p) for name, p in model.named_parameters()} == parameters
    assert [type(m) for m in model.modules()] == modules
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert not any("orig" in name for name, _ in model.named_buffers())


def test_candidates_are_those_of_select_and_draws_prune_the_asked_share() -> None:
    model = blocks()
    surrogate = sc.Diversified(model, 0.5, 0.3, seed=1)
    wanted = sc.select(model, 0.5)
    assert surrogate.candidates.count == wanted.count
    for name, chosen in wanted.chosen.items():
        assert torch.equal(surrogate.candidates.chosen[name], chosen)
    ratios = []
    for _ in range(200):
        surrogate(images(1))
        ratios.append(surrogate.masks.sparsity)
        assert all((surrogate.masks[n] | c).all() for n, c in wanted.chosen.items())
    spread = math.sqrt(0.3 * 0.7 * wanted.count / 200) / wanted.total
    assert abs(sum(ratios) / 200 - 0.15) < 5 * spread


def test_masks_change_at_each_call_and_eval_does_not_stop_them() -> None:
    surrogate, x = sc.Diversified(blocks(), 0.6, 0.5), images()
    surrogate.eval()
    seen = {surrogate(x).sum().item() for _ in range(8)}
    assert len(seen) == 8
    assert surrogate.draws == 8


def test_a_seed_gives_its_sequence_and_other_seeds_others() -> None:
    x = images()
    first, again, other = (sc.Diversified(blocks(), 0.6, 0.5, seed=s) for s in (4, 4, 5))
    runs = [[s(x) for _ in range(3)] for s in (first, again, other)]
    assert all(map(torch.equal, runs[0], runs[1]))
    assert not any(map(torch.equal, runs[0], runs[2]))
    first.restart(5)
    assert all(torch.equal(first(x), logits) for logits in runs[2])


def test_redraw_at_steps() -> None:
    surrogate, x = sc.Diversified(blocks(), 0.6, 0.5, redraw="step"), images()
    first = surrogate(x)
    assert torch.equal(surrogate(x), first)
    surrogate.step()
    second = surrogate(x)
    assert not torch.equal(second, first)
    assert torch.equal(surrogate(x), second)
    with surrogate.frozen():
        surrogate.step()
        assert torch.equal(surrogate(x), second)


@pytest.mark.parametrize("redraw", ["forward", "step", 3])
def test_masks_are_those_of_the_last_call(redraw: str | int) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, redraw=redraw)
    coming = surrogate.masks
    assert surrogate.draws == 0
    logits = surrogate(x)
    assert torch.equal(logits, oracle(model, coming)(x))
    for said in (surrogate.step, surrogate.reselect, lambda: surrogate.frozen().__enter__()):
        said()
        assert all(torch.equal(surrogate.masks[name], coming[name]) for name in coming)
    logits = surrogate(x)
    assert torch.equal(logits, oracle(model, surrogate.masks)(x))
    assert not torch.equal(logits, oracle(model, coming)(x))
    surrogate.restart(0)
    assert all(torch.equal(surrogate.masks[name], coming[name]) for name in coming)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor])
def test_integers_of_any_kind(kind: Any) -> None:
    x = images()
    found = sc.Diversified(blocks(), 0.6, 0.5, seed=kind(7), redraw=kind(2))
    wanted = sc.Diversified(blocks(), 0.6, 0.5, seed=7, redraw=2)
    assert torch.equal(found(x), wanted(x))
    assert (type(found.seed), type(found.redraw)) == (int, int)
    found.restart(kind(8))
    assert type(found.seed) is int
    both = sc.ensemble([blocks(), blocks()], 0.6, 0.5, seed=kind(255))  # the largest uint8
    assert [member.seed for member in both] == [255, 256]
    both.restart(kind(3))
    assert [member.seed for member in both] == [3, 4]


def test_a_step_means_nothing_where_every_call_draws() -> None:
    x, one, other = images(), *(sc.Diversified(blocks(), 0.6, 0.5) for _ in range(2))
    for _ in range(3):
        one.step()
        assert torch.equal(one(x), other(x))


def test_a_number_of_draws_repeats() -> None:
    surrogate, x = sc.Diversified(blocks(), 0.6, 0.5, redraw=3), images()
    seen = [surrogate(x) for _ in range(9)]
    assert all(torch.equal(seen[i], seen[i % 3]) for i in range(9))
    assert not torch.equal(seen[0], seen[1])


def test_dense_and_frozen_end_with_their_block() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    with surrogate.dense() as seen:
        assert seen is surrogate
        assert torch.equal(surrogate(x), model(x))
        assert surrogate.draws == 0
    with surrogate.frozen():
        first = surrogate(x)
        with surrogate.frozen(), surrogate.dense():
            assert torch.equal(surrogate(x), model(x))
        assert torch.equal(surrogate(x), first)
    assert surrogate.draws == 1
    with pytest.raises(ZeroDivisionError), surrogate.dense():
        raise ZeroDivisionError
    assert not torch.equal(surrogate(x), model(x))


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_backward_passes_see_the_masks_of_their_forward_passes(
    prune_type: str, order: tuple[int, ...]
) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type, seed=7)
    leaf = x.clone().requires_grad_()
    passes, wanted = [], []
    for _ in range(3):
        passes.append(surrogate(leaf).square().sum())
        wanted.append(oracle(model, surrogate.masks, prune_type))
    for number in order:
        (found,) = torch.autograd.grad(passes[number], leaf, retain_graph=True)
        assert torch.equal(found, input_gradient(wanted[number], x))


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_weights_get_the_gradients_that_the_masks_leave(prune_type: str) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    surrogate(x).square().sum().backward()
    wanted = oracle(model, surrogate.masks, prune_type)
    wanted.zero_grad()
    wanted(x).square().sum().backward()
    for (name, found), (_, other) in zip(
        surrogate.named_parameters(), wanted.named_parameters(), strict=True
    ):
        assert found.grad is not None
        assert other.grad is not None
        # Pruning in place leaves the gradient of a pruned weight; as a function of it, it is 0.
        grad = (
            other.grad * surrogate.masks[name]
            if prune_type == "global" and name in surrogate.masks
            else other.grad
        )
        torch.testing.assert_close(found.grad, grad)


def test_frozen_weights_stay_out_of_the_graph() -> None:
    model, x = blocks().requires_grad_(False), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    assert not surrogate(x).requires_grad
    model.head.weight.requires_grad_(True)
    surrogate(x).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None] == ["head.weight"]


def test_it_is_seen_as_its_model() -> None:
    model = blocks()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    assert isinstance(surrogate, nn.Module)
    assert [n for n, _ in surrogate.named_modules()] == [n for n, _ in model.named_modules()]
    assert all(
        n == m and p is q
        for (n, p), (m, q) in zip(
            surrogate.named_parameters(), model.named_parameters(), strict=True
        )
    )
    assert list(surrogate.state_dict()) == list(model.state_dict())
    assert surrogate.stem is model.stem
    assert surrogate.network is model
    surrogate.train()
    assert model.training
    assert model.block.training
    surrogate.eval()
    assert not model.training
    assert not surrogate.training
    surrogate.double()
    assert model.head.weight.dtype == torch.float64
    assert surrogate(images().double()).dtype == torch.float64
    assert next(surrogate.parameters()) is next(model.parameters())
    surrogate.requires_grad_(False)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(AttributeError, match="nowhere"):
        _ = surrogate.nowhere


def test_loading_weights_reaches_the_model_and_reselect_follows() -> None:
    model = blocks()
    surrogate = sc.Diversified(model, 0.5, 1.0)
    other = {name: torch.flip(t, [0]) if t.dim() else t for name, t in model.state_dict().items()}
    surrogate.load_state_dict(other)
    surrogate.reselect()
    wanted = oracle(model, sc.select(model, 0.5).draw())
    assert torch.equal(surrogate(images()), wanted(images()))


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_copies_go_on_by_themselves(prune_type: str, tmp_path: Path) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    surrogate(x)
    torch.save(surrogate, tmp_path / "surrogate.pt")
    copies = [
        copy.deepcopy(surrogate),
        pickle.loads(pickle.dumps(surrogate)),
        torch.load(tmp_path / "surrogate.pt", weights_only=False),
    ]
    wanted = input_gradient(surrogate, x)
    for each in copies:
        assert each.stem is each.network.stem
        assert each.stem is not model.stem
        assert torch.equal(input_gradient(each, x), wanted)
        with torch.no_grad():
            each.network.head.weight.zero_()
        assert model.head.weight.any()


def test_tied_weights_are_pruned_at_both_places() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    surrogate, x = sc.Diversified(model, 0.5, 0.5), torch.rand(2, 6)
    logits = surrogate(x)
    assert torch.equal(logits, oracle(model, surrogate.masks)(x))


def test_channels_last_and_half_follow_the_model() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    with surrogate.frozen():
        before = surrogate(x)
        surrogate.to(memory_format=torch.channels_last)
        masks = surrogate.masks
        torch.testing.assert_close(surrogate(x), before)
    surrogate.restart(0)
    surrogate(x)
    assert all(torch.equal(surrogate.masks[name], masks[name]) for name in masks)
    surrogate.bfloat16()
    assert torch.equal(surrogate(x.bfloat16()), oracle(model, surrogate.masks)(x.bfloat16()))


def test_other_ways_to_run_a_model_are_pruned_too() -> None:
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=4).eval()
    surrogate, x = sc.Diversified(model, 0.6, 0.5), torch.rand(1, 3, 64, 64)
    features = surrogate.forward_features(x)
    assert surrogate.draws == 1
    assert torch.equal(features, oracle(model, surrogate.masks).forward_features(x))
    assert surrogate.num_classes == 4
    assert surrogate.default_cfg is model.default_cfg


def test_transformers_outputs_become_logits() -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], num_labels=3)
    model = ResNetForImageClassification(config).eval()
    surrogate, x = sc.Diversified(model, 0.5, 0.5), torch.rand(2, 3, 32, 32)
    logits = surrogate(x)
    assert torch.equal(logits, oracle(model, surrogate.masks)(x).logits)
    with surrogate.dense():
        assert torch.equal(surrogate(pixel_values=x), model(x).logits)


def test_autocast_and_inference_mode() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = surrogate(x)
        assert torch.equal(logits, oracle(model, surrogate.masks)(x))
    with torch.inference_mode():
        logits = surrogate(x)
        assert torch.equal(logits, oracle(model, surrogate.masks)(x))


@given(p_prune=st.floats(0, 1), p_bern=st.sampled_from([0.0, 0.2, 1.0]), seed=st.integers(0, 99))
def test_any_ratio(p_prune: float, p_bern: float, seed: int) -> None:
    model, x = blocks(), images(1)
    surrogate = sc.Diversified(model, p_prune, p_bern, seed=seed)
    logits = surrogate(x)
    assert torch.equal(logits, oracle(model, surrogate.masks)(x))


def test_one_copy_of_the_weights_for_each_pending_pass() -> None:
    """The graph of a pass holds the pruned weights, and no mask."""
    model, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), torch.rand(1, 64)
    surrogate = sc.Diversified(model, 0.5, 0.5)
    saved: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        surrogate(x.requires_grad_()).sum()
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in saved
        if t.numel() >= 64 * 64
    }
    weights = sum(p.numel() * p.element_size() for p in model.parameters() if p.dim() == 2)
    assert sum(held.values()) <= weights


BAD: list[tuple[dict[str, Any], str]] = [
    ({"p_prune": 1.2}, "p_prune must be from 0 to 1"),
    ({"p_bern": "half"}, "p_bern must be a number"),
    ({"redraw": "often"}, 'redraw must be "forward", "step"'),
    ({"redraw": 0}, "how many draws"),
    ({"redraw": True}, "redraw must be"),
    ({"prune_type": "backward"}, "prune_type must be one of global, gradient"),
    ({"redraw": np.bool_(True)}, "redraw must be"),
    ({"redraw": 2.0}, "redraw must be"),
    ({"seed": 0.5}, "seed must be an integer"),
    ({"seed": True}, "seed must be an integer"),
    ({"seed": torch.tensor([1, 2])}, "seed must be an integer"),
    ({"granularity": "row"}, "granularity must be one of"),
    ({"layers": "attention"}, "nothing to prune"),
    ({"mode": "gradient"}, "has no option mode: write prune_type"),
    ({"prune_type": "gradient", "layers": "all"}, "gradient pruning works on"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_errors_say_what_to_write(options: dict[str, Any], words: str) -> None:
    with pytest.raises(sc.InvalidArgumentError, match=words):
        sc.Diversified(blocks(), **({"p_prune": 0.5, "p_bern": 0.5} | options))


def test_models_that_cannot_be_surrogates() -> None:
    with pytest.raises(sc.InvalidArgumentError, match=r"must be a torch\.nn\.Module"):
        sc.Diversified(torch.relu, 0.5, 0.5)  # type: ignore[arg-type]
    with pytest.raises(sc.InvalidArgumentError, match="surrogate already"):
        dwp(mup(blocks()))
    with pytest.raises(sc.InvalidArgumentError, match="restore"):
        sc.Diversified(sc.global_prune(blocks(), 0.5), 0.5, 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="restore"):
        sc.Diversified(sc.gradient_prune(blocks(), 0.5), 0.5, 0.5)
    with pytest.raises(sc.InvalidArgumentError, match="nothing to prune"):
        sc.Diversified(nn.Sequential(nn.ReLU()), 0.5, 0.5)


def test_what_cannot_be_chosen_anew_is_an_error_at_every_call() -> None:
    surrogate = dwp(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    surrogate.network[1] = nn.Linear(4, 3)
    nn.init.constant_(surrogate.network[1].weight, torch.nan)
    for _ in range(2):
        with pytest.raises(sc.InvalidArgumentError, match="NaN"):
            surrogate(torch.ones(1, 4))


def test_it_shows_its_settings() -> None:
    surrogate = sc.Diversified(blocks(), 0.3, 0.5, redraw=4, seed=9)
    assert "p_prune=0.3, p_bern=0.5, redraw=4, prune_type='global'" in repr(surrogate)
    assert "seed=9" in repr(surrogate)
