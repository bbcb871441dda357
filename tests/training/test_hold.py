"""Held is held: pruned weights are zero after any step of any optimizer."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad_norm_
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint
from training_cases import (
    ALONE,
    LABELS,
    TOGETHER,
    Stepping,
    assert_held,
    assert_zeros,
    images,
    loss_of,
    network,
    pruned,
    states,
    train,
)

import secateurs as sc
from helpers import Tied, assert_same, snapshot
from secateurs.training import hold

every_optimizer = pytest.mark.parametrize("stepping", ALONE + TOGETHER, ids=lambda s: s.name)


def sgd(model: nn.Module, **options: Any) -> optim.Optimizer:
    return optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})


@pytest.mark.parametrize("stepping", ALONE, ids=lambda s: s.name)
def test_a_held_training_is_one_whose_pruned_weights_are_wiped_after_each_step(
    stepping: Stepping,
) -> None:
    model, reference = network(), network()
    masks = pruned(model)
    sc.apply_masks(reference, masks)
    held, obvious = stepping.of(model.parameters()), stepping.of(reference.parameters())
    parameters = {reference.get_parameter(name): mask for name, mask in masks.items()}

    def wipe() -> None:
        with torch.no_grad():
            for parameter, mask in parameters.items():
                parameter[~mask] = 0
            for _, parameter, value in states(obvious):
                if parameter in parameters:
                    value[~parameters[parameter]] = 0

    hold(model, held)
    for _ in range(4):
        train(model, held, 1)
        train(reference, obvious, 1, wipe)
        assert_held(model, held, masks)
        assert_same(snapshot(model), snapshot(reference))
    assert [v for _, _, v in states(held)] or not stepping.options.get("momentum")


@pytest.mark.parametrize("stepping", TOGETHER[:2], ids=lambda s: s.name)
def test_what_is_pruned_does_not_move_what_is_kept(stepping: Stepping) -> None:
    """The reference has no pruned weights: its parameter is a list of those that are kept."""

    class Kept(nn.Module):
        def __init__(self, layer: nn.Linear, mask: Tensor):
            super().__init__()
            self.mask = mask
            self.kept = nn.Parameter(layer.weight.detach()[mask])

        def forward(self, x: Tensor) -> Tensor:
            weight = torch.zeros(self.mask.shape, dtype=x.dtype).masked_scatter(
                self.mask, self.kept
            )
            return x @ weight.T

    layer = nn.Linear(50, 5, bias=False, dtype=torch.float64)
    masks = pruned(layer, 0.5)
    other = Kept(layer, masks["weight"])
    x = images().double().flatten(1)
    hold(layer, held := stepping.of(layer.parameters()))
    obvious = stepping.of(other.parameters())
    for model, optimizer in ((layer, held), (other, obvious)):

        def closure(model: nn.Module = model, optimizer: optim.Optimizer = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), LABELS)
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
    torch.testing.assert_close(layer.weight.detach()[masks["weight"]], other.kept.detach())
    assert_zeros(layer.weight.detach()[~masks["weight"]], "weight")
    kept = held.state[layer.weight]
    flat = torch.stack([kept["d"], kept["prev_flat_grad"], *kept["old_dirs"], *kept["old_stps"]])
    assert_zeros(flat.view(-1, 5, 50)[:, ~masks["weight"]], "a direction of LBFGS")


@every_optimizer
@pytest.mark.parametrize("granularity", ["kernel", "filter"])
def test_units_are_held_and_so_is_what_was_kept_before(
    stepping: Stepping, granularity: str
) -> None:
    model = network()
    optimizer = stepping.of(model.parameters())
    train(model, optimizer, 2)  # now there are moments of all weights
    masks = pruned(model, 0.4, granularity=granularity, scope="layer")
    with hold(model, optimizer):
        assert_held(model, optimizer, masks)
        train(model, optimizer, 2)
        assert_held(model, optimizer, masks)


def test_a_muon_step_that_mixes_all_weights_is_held() -> None:
    if not hasattr(optim, "Muon"):
        pytest.skip("this torch has no Muon")
    model = nn.Linear(20, 20, bias=False)
    masks, optimizer = pruned(model), optim.Muon(model.parameters(), lr=0.1)
    with hold(model, optimizer):
        for _ in range(3):
            model(torch.randn(4, 20)).square().sum().backward()
            optimizer.step()
            assert_held(model, optimizer, masks)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:]
)
def test_any_dtype_and_order_of_memory(dtype: torch.dtype) -> None:
    model = network().to(dtype, memory_format=torch.channels_last)
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        train(model, optimizer, 2)
        assert_held(model, optimizer, masks)


def test_a_slice_with_gaps_is_held() -> None:
    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(torch.randn(4, 8)[:, ::2])
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        assert_held(model, optimizer, masks)


def test_what_is_not_a_number_does_not_come_through_the_mask() -> None:
    model = nn.Linear(8, 8)
    masks, optimizer = pruned(model, 0.5), sgd(model)
    with hold(model, optimizer):
        model.weight.grad = torch.full((8, 8), torch.nan).where(~masks["weight"], 1.0)
        optimizer.step()
        assert_held(model, optimizer, masks)


def write_state(model: nn.Linear, optimizer: optim.Optimizer) -> None:
    optimizer.state[model.weight]["exp_avg"].fill_(1)


def load_states(model: nn.Linear, optimizer: optim.Optimizer) -> None:
    other = nn.Linear(8, 8)
    optimizer.load_state_dict(stepped(other, optim.Adam(other.parameters())).state_dict())


def write_data(model: nn.Linear, _: optim.Optimizer) -> None:
    model.weight.data.fill_(1)


def shift_gradients_last(model: nn.Linear, optimizer: optim.Optimizer) -> None:
    def shift(*_: Any) -> None:
        model.weight.grad.add_(1)  # type: ignore[union-attr]

    optimizer.register_step_pre_hook(shift)


def overflow_gradients(model: nn.Linear, _: optim.Optimizer) -> None:
    model.weight.grad = torch.ones_like(model.weight).where(model.weight != 0, torch.inf)


def stepped(model: nn.Linear, optimizer: optim.Optimizer) -> optim.Optimizer:
    model(torch.ones(2, 8)).square().sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(
    "happens", [write_state, load_states, write_data, shift_gradients_last, overflow_gradients]
)
def test_adam_is_held_whatever_happens_between_its_steps(
    happens: Callable[..., None], dtype: torch.dtype
) -> None:
    model = nn.Linear(8, 8)
    masks, optimizer = pruned(model.to(dtype), 0.5), optim.Adam(model.parameters(), amsgrad=True)
    with hold(model, optimizer):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        happens(model, optimizer)
        for _ in range(2):
            optimizer.step()
            weight = model.weight.detach()
            assert_zeros(weight[~masks["weight"]], "weight")
            for name, parameter, value in states(optimizer):
                if parameter is model.weight:
                    assert_zeros(value[~masks["weight"]], name)


def test_several_optimizers_groups_and_one_that_comes_later() -> None:
    model = network()
    masks = pruned(model)
    first = optim.SGD([{"params": [model[0].weight]}], lr=0.1, momentum=0.9)
    model[4].weight.requires_grad_(False)
    second = optim.Adam(model[1].parameters())
    with hold(model, [first, second]):
        model[4].weight.requires_grad_(True)
        first.add_param_group({"params": [model[4].weight], "lr": 0.01})
        for _ in range(3):
            loss_of(model).backward()
            first.step()
            second.step()
        assert len(first.state) == 2
        assert_held(model, first, masks)


def test_gradients_that_add_up_and_are_clipped() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer) as held:
        for _ in range(2):
            loss_of(model).backward()
        dense = clip_grad_norm_(model.parameters(), torch.inf)
        held.mask_gradients()
        kept = clip_grad_norm_(model.parameters(), 0.1)
        for name, mask in masks.items():
            assert_zeros(model.get_parameter(name).grad[~mask], name)  # type: ignore[index]
        assert kept < dense
        optimizer.step()
        assert_held(model, optimizer, masks)


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaler_that_skips_a_step_under_autocast(fused: bool) -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    with hold(model, optimizer):
        for number in range(4):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = loss_of(model) * (torch.inf if number == 1 else 1)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            assert_held(model, optimizer, masks)


def test_averages_become_and_stay_zero() -> None:
    model = network()
    optimizer = sgd(model)
    mean, moving = (
        AveragedModel(model),
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    )

    def average() -> None:
        mean.update_parameters(model)
        moving.update_parameters(model)

    train(model, optimizer, 2, average)
    masks = pruned(model)
    late = AveragedModel(model)
    with hold(model, optimizer, averaged=[mean, moving]):
        train(model, optimizer, 2, lambda: (average(), late.update_parameters(model)))
    for ema in (mean, moving, late):
        for name, mask in masks.items():
            weight = ema.module.get_parameter(name).detach()
            assert_zeros(weight[~mask], name)
            assert weight[mask].any()


def test_checkpointed_activations_and_tied_weights() -> None:
    model = Tied()
    masks = pruned(model, include=["embed", "body"])
    optimizer = sgd(model)
    tokens = torch.arange(5)[None]
    with hold(model, optimizer):
        for _ in range(3):
            hidden = checkpoint(lambda t: model.body(model.embed(t)), tokens, use_reentrant=False)
            model.head(hidden).square().sum().backward()
            optimizer.step()
        assert_held(model, optimizer, masks)
    assert model.head.weight is model.embed.weight


@pytest.mark.parametrize("stepping", [ALONE[1], Stepping("sparse-adam", optim.SparseAdam)])
def test_sparse_gradients_and_their_momentum_are_held(stepping: Stepping) -> None:
    model = nn.Embedding(10, 4, sparse=True)
    masks = pruned(model, 0.5, layers="all")
    optimizer = stepping.of(model.parameters())
    if stepping.options:
        optimizer.param_groups[0]["weight_decay"] = 0  # torch refuses it for sparse gradients
    with hold(model, optimizer) as held:
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.tensor([1, 2, 1])).sub(1).square().sum().backward()
            optimizer.step()
            assert_zeros(model.weight.detach()[~masks["weight"]], "weight")
            for name, value in optimizer.state[model.weight].items():
                if name != "step":
                    assert_zeros(value.to_dense()[~masks["weight"]], name)
        held.mask_gradients()
        assert_zeros(model.weight.grad.to_dense()[~masks["weight"]], "gradient")  # type: ignore[union-attr]
        assert model.weight.grad.to_dense().any()  # type: ignore[union-attr]


def test_a_hold_may_be_collected_while_an_optimizer_steps() -> None:
    def forgotten() -> None:
        model = sc.global_prune(nn.Linear(4, 4), 0.5)
        hold(model, optim.SGD(model.parameters(), lr=0.1))

    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    collected: list[int] = []
    gc.collect()
    gc.disable()
    forgotten()
    handles = [
        register_optimizer_step_pre_hook(hook)
        for hook in (lambda *_: collected.append(gc.collect()), lambda *_: None)
    ]
    try:
        optimizer.step()
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
    assert collected[0]


def test_compiled_steps_and_models() -> None:
    model = nn.Linear(8, 8)
    masks, optimizer = pruned(model), sgd(model)
    compiled = torch.compile(model, backend="eager")
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    with hold(model, optimizer) as held:
        for _ in range(2):
            optimizer.zero_grad()
            compiled(torch.ones(2, 8)).square().sum().backward()
            step()
        assert held.steps == 2
        assert_held(model, optimizer, masks)
