"""Held is held: pruned weights are zero after any step of any optimizer."""

import copy
import io
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.utils import clip_grad_norm_
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
from secateurs.training import hold, masks_from_zeros

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


def test_given_masks_are_applied_and_restore_keeps_its_meaning() -> None:
    model = network()
    before = snapshot(model)
    masks = sc.select(model, 0.5).draw()
    optimizer = sgd(model)
    with hold(model, optimizer, masks):
        assert_held(model, optimizer, masks)
        dense = {name: model.get_parameter(name).detach().clone() for name in masks}
        train(model, optimizer, 1)
    assert torch.equal(
        model[4].weight_orig[masks["4.weight"]], dense["4.weight"][masks["4.weight"]]
    )
    with pytest.warns(sc.LostTrainingWarning):
        sc.restore(model)
    after = snapshot(model)
    assert all(torch.equal(after[name], before[name]) for name in masks)


def test_after_the_block_pruned_weights_learn_again() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        train(model, optimizer, 1)
    assert_held(model, optimizer, masks)
    train(model, optimizer, 1)
    assert model[4].weight[~masks["4.weight"]].any()
    assert not model._load_state_dict_post_hooks
    assert not model[4]._load_state_dict_post_hooks


def test_a_newer_hold_takes_the_place_of_an_older() -> None:
    model = network()
    masks = pruned(model)
    first, second = sgd(model), sgd(model)
    older = hold(model, first)
    hold(model, second)
    assert "removed" in repr(older)
    train(model, second, 2)
    assert_held(model, second, masks)


def test_loading_keeps_a_model_held_and_loses_nothing() -> None:
    model, dense = network(), network(1)
    masks, optimizer = pruned(model), sgd(model)
    with hold(model, optimizer):
        train(model, optimizer, 1)
        model.load_state_dict(dense.state_dict())
        assert_held(model, optimizer, masks)
        assert torch.equal(model[4].weight_orig, dense[4].weight)
        model[4].load_state_dict(network(2)[4].state_dict())  # a part alone
        assert_zeros(model[4].weight.detach()[~masks["4.weight"]], "4.weight")
        other = sgd(dense)
        train(dense, other, 2)
        optimizer.load_state_dict(other.state_dict())
        train(model, optimizer, 1)
        assert_held(model, optimizer, masks)


def test_what_is_saved_in_between_loads_into_a_plain_model() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    hold(model, optimizer)
    train(model, optimizer, 2)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    plain = network(1)
    plain.load_state_dict(torch.load(file, weights_only=True))
    assert_same(snapshot(plain), snapshot(model))
    assert masks_from_zeros(plain) == masks
    hold(plain, other := sgd(plain))  # taken from the zeros
    train(plain, other, 1)
    assert_held(plain, other, masks)


def test_a_held_model_is_copied_and_pickled_without_its_hold() -> None:
    model = network()
    masks, optimizer = pruned(model), sgd(model)
    hold(model, optimizer)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.load_state_dict(network(1).state_dict())
        assert other[4].weight[~masks["4.weight"]].all()
    train(model, optimizer, 1)
    assert_held(model, optimizer, masks)


def test_wrapped_optimizers_are_held() -> None:
    class Twice(optim.Optimizer):
        """Steps a base optimizer, and then moves every weight itself."""

        def __init__(self, base: optim.Optimizer):
            self.base = base
            super().__init__(base.param_groups, {})

        def step(self, closure: Any = None) -> None:
            self.base.step()
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(0.1)

    for late in (False, True):
        model = network()
        masks, base = pruned(model), sgd(model)
        outer = None if late else Twice(base)
        with hold(model, outer or base):
            loss_of(model).backward()
            (outer or Twice(base)).step()
            assert_held(model, base, masks)


def bad(match: str) -> Any:
    return pytest.raises(sc.InvalidArgumentError, match=re.escape(match))


def test_bad_input_is_named_and_changes_nothing() -> None:
    model = network()
    optimizer = sgd(model)
    before = snapshot(model)
    masks = sc.select(model, 0.5).draw()
    with bad("no weight is zero"):
        hold(model, optimizer)
    with bad("the masks are for another model: it has no parameter 'weight'"):
        hold(model, optimizer, sc.select(nn.Linear(3, 3), 0.5).draw())
    with bad("0.weight, 4.weight: masked, but in none of the optimizers"):
        hold(model, sgd(network()), masks)
    with bad("4.weight: masked, but in none"):
        hold(model, optim.SGD(model[0].parameters()), masks)
    with bad("must be a torch.optim.Optimizer or a list of them, got Sequential"):
        hold(model, model)  # type: ignore[arg-type]
    assert_same(snapshot(model), before)
    assert not hasattr(model[4], "weight_orig")
    nn.init.zeros_(model[4].weight)
    with bad("all weights of 4.weight are zero"):
        masks_from_zeros(model)


def test_an_optimizer_that_was_replaced_is_refused_before_it_steps() -> None:
    model = network()
    pruned(model)
    hold(model, sgd(model))
    before = snapshot(model)
    other = sgd(model)
    loss_of(model).backward()
    with bad("0.weight is held, but the SGD that is about to step it was not handed in"):
        other.step()
    after = snapshot(model)
    assert all(torch.equal(after[n], before[n]) for n, _ in model.named_parameters())
    sgd(network()).step()  # others go on


def test_another_parameter_in_the_place_of_a_held_one_is_named() -> None:
    model = network()
    pruned(model)
    hold(model, sgd(model))
    with bad("0.weight was replaced by another Parameter (load_state_dict with assign=True)"):
        model.load_state_dict(network(1).state_dict(), assign=True)
