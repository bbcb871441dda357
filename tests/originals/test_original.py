"""Weights that changed since they were pruned: measured as they are, pruned from what they are."""

import copy
import math
import pickle
import warnings
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

import secateurs as sc
from helpers import bits
from secateurs.originals.original import Original


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5)
    return nn.Sequential(*layers).eval()


def step(build: type[torch.optim.Optimizer], **options: object) -> Callable[[nn.Module], None]:
    def train(model: nn.Module) -> None:
        optimizer = build(model.parameters(), lr=0.1, **options)
        model(torch.ones(2, 2, 5, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def load(model: nn.Module) -> None:
    torch.manual_seed(1)
    model.load_state_dict(nn.Sequential(*map(type_with_new_values, model)).state_dict())


def type_with_new_values(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    return other


def reset(model: nn.Module) -> None:
    torch.manual_seed(2)
    for module in (model[0], model[3]):
        module.reset_parameters()


def merge(model: nn.Module) -> None:
    """As an adapter is merged into its layer, in place or by assignment."""
    model[0].weight.data += 0.1
    model[3].weight.data = model[3].weight.data + torch.ones(5, 1) @ torch.ones(1, 36)


@torch.no_grad()
def fuse(model: nn.Module) -> None:
    conv, norm = model[0], model[1]
    norm.weight.fill_(3.0)
    parts = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *parts)
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)
    model[3].weight.mul_(2)


def through_numpy(model: nn.Module) -> None:
    for module in (model[0], model[3]):
        module.weight.detach().numpy()[...] += 1


def one_value(model: nn.Module) -> None:
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = 7.0
        model[3].weight[-1, -1] = -7.0


def fill_with_zeros(model: nn.Module) -> None:
    for module in (model[0], model[3]):
        nn.init.zeros_(module.weight)


def zero_the_data(model: nn.Module) -> None:
    for module in (model[0], model[3]):
        module.weight.data.zero_()


def load_zeros(model: nn.Module) -> None:
    model.load_state_dict({k: torch.zeros_like(v) for k, v in model.state_dict().items()})


@torch.no_grad()
def zero_the_largest(model: nn.Module) -> None:
    """As who prunes by hand what is left."""
    for module in (model[0], model[3]):
        weight = module.weight
        weight.masked_fill_(weight.abs() == weight.abs().max(), 0.0)


CHANGES = {
    "SGD": step(torch.optim.SGD),
    "Adam": step(torch.optim.Adam, foreach=True),
    "fused": step(torch.optim.AdamW, fused=True),
    "load_state_dict": load,
    "reset_parameters": reset,
    "adapter": merge,
    "fusion": fuse,
    "numpy": through_numpy,
    "one value": one_value,
    "zeros_": fill_with_zeros,
    "data.zero_": zero_the_data,
    "zeros loaded": load_zeros,
    "the largest": zero_the_largest,
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [bits(model[i].weight) for i in (0, 3)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, first, second))


def changed(change: Callable[[nn.Module], None]) -> tuple[nn.Module, nn.Module]:
    """A model that was pruned and changed, and one that never was pruned, with its weights."""
    model, plain = sc.global_prune(network(), 0.5), network()
    change(model)
    plain.load_state_dict(model.state_dict())
    return model, plain


@every_change
def test_selecting_and_counting_use_current_values_and_change_nothing(
    change: Callable[[nn.Module], None],
) -> None:
    model, plain = changed(change)
    before, originals = weights(model), [model[i].weight_orig.clone() for i in (0, 3)]
    for options in ({}, {"granularity": "filter"}, {"score": lambda t: t.weight.abs() + 1}):
        assert sc.select(model, 0.3, **options) == sc.select(plain, 0.3, **options)
    assert sc.select_levels(model, [0.2, 0.6]) == sc.select_levels(plain, [0.2, 0.6])
    assert sc.sparsity(model) == sc.sparsity(plain)
    assert same(weights(model), before)
    for i, original in zip((0, 3), originals, strict=True):
        assert torch.equal(model[i].weight_orig, original)


@every_change
@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_pruning_a_changed_model_starts_from_its_current_values(
    change: Callable[[nn.Module], None], prune: Callable[..., nn.Module]
) -> None:
    model, plain = changed(change)
    learned = weights(model)
    prune(model, 0.3)
    assert same(weights(model), weights(prune(plain, 0.3)))
    assert torch.equal(model[3].weight_orig, plain[3].weight_orig)
    assert same(weights(sc.restore(model)), learned)


@every_change
@pytest.mark.parametrize("prune_type", ["global", "gradient"])
def test_masks_apply_to_the_current_values_of_a_changed_model(
    change: Callable[[nn.Module], None], prune_type: str
) -> None:
    masks = sc.select(network(), 0.5).draw()
    model = sc.apply_masks(network(), masks)
    change(model)
    plain = network()
    plain.load_state_dict(model.state_dict())
    # A single value that torch counted is found; see `apply_masks` for what is not.
    sc.apply_masks(model, masks, prune_type)
    assert same(weights(model), weights(sc.apply_masks(plain, masks, prune_type)))


@every_change
def test_weights_that_are_no_longer_masked_keep_their_training(
    change: Callable[[nn.Module], None],
) -> None:
    model, plain = changed(change)
    sc.global_prune(model, 0.5, include="0")
    assert torch.equal(bits(model[3].weight), bits(plain[3].weight))
    assert not hasattr(model[3], "weight_orig")


@every_change
def test_restore_puts_originals_back_and_warns_of_lost_training(
    change: Callable[[nn.Module], None],
) -> None:
    model, plain = changed(change)
    kept = copy.deepcopy(model)
    with pytest.warns(sc.LostTrainingWarning, match=r"0\.weight, 3\.weight .*make_permanent") as w:
        sc.restore(model)
    assert len(w) == 1
    assert w[0].filename == __file__
    assert same(weights(model), weights(network()))
    assert same(weights(sc.make_permanent(kept)), weights(plain))


@pytest.mark.parametrize("block", [False, True])
def test_zeros_that_torch_did_not_count_are_not_lost_in_silence(block: bool) -> None:
    model = network()
    with pytest.warns(sc.LostTrainingWarning, match=r"3\.weight "), ExitStack() as stack:
        if block:
            stack.enter_context(sc.pruned(model, 0.5))
        else:
            sc.global_prune(model, 0.5)
        model[3].weight.data[model[3].weight == model[3].weight.max()] = 0
        if not block:
            sc.restore(model)
    assert same(weights(model), weights(network()))


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_knows_what_was_trained(way: str) -> None:
    model, plain = changed(CHANGES["SGD"])
    model = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    sc.global_prune(model.half(), 0.3)
    assert same(weights(model), weights(sc.global_prune(plain.half(), 0.3)))


MOVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "half": lambda model: model.half().float(),
    "channels_last": lambda model: model.to(memory_format=torch.channels_last),
    "a block": lambda model: after_a_block(model),
}


def after_a_block(model: nn.Module) -> nn.Module:
    with sc.pruned(model, 0.2):
        return model


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_a_model_that_was_moved_knows_which_zeros_are_its_own(
    move: Callable[[nn.Module], nn.Module], granularity: str
) -> None:
    model = move(sc.global_prune(network(), 0.5, granularity=granularity, scope="layer"))
    assert not any(t.original.trained for t in sc.find_targets(model))
    zero_the_largest(model)
    learned = weights(model)
    assert same(weights(sc.restore(sc.global_prune(model, 0.3))), learned)


def test_masks_that_are_overwritten_say_nothing_of_the_weights() -> None:
    """Zeros are its own, whatever the masks say now that the model was once pruned by."""
    model, candidates = network(), sc.select(network(), 0.9)
    masks = candidates.draw(0.5, seed=0)
    for seed in range(1, 4):
        sc.apply_masks(model, masks)
        model[3].weight.grad = torch.zeros_like(model[3].weight)  # so that all values are read
        candidates.draw(0.5, seed=seed, out=masks)
    for name in masks:  # as numpy writes, which nobody counts
        masks.units[name].keep.numpy()[:] = True
    assert same(weights(sc.restore(sc.global_prune(model, 0.3))), weights(network()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.half, torch.bfloat16, torch.float8_e5m2])
def test_pruned_and_untrained_is_not_taken_for_trained(dtype: torch.dtype) -> None:
    """Zeros of either sign, a conversion, another layout: still original values and zeros."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3)).to(dtype)
    before = bits(model[0].weight)
    sc.apply_masks(model, sc.select(network(), 0.5, include="0").draw())
    with torch.no_grad():
        zero = model[0].weight.double() == 0
        model[0].weight.copy_(torch.where(zero, -0.0, model[0].weight.double()).to(dtype))
    model.to(memory_format=torch.channels_last)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(bits(sc.restore(model)[0].weight), before)


def test_iterative_pruning_keeps_what_is_pruned_a_candidate() -> None:
    """Han et al. 2015: zeros that were held are the smallest, and go first again."""
    model = network()
    masks = sc.select(model, 0.4).draw()
    sc.apply_masks(model, masks)
    CHANGES["SGD"](model)
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    later = sc.select(model, 0.7).draw()
    assert later.table.zeros == round(0.7 * 252)
    for name, mask in masks.items():
        assert not (later[name] & ~mask).any()
    learned = weights(model)
    sc.restore(sc.global_prune(model, 0.7))
    assert same(weights(model), learned)


def test_a_redraw_in_a_loop_keeps_training_by_an_optimizer_that_counts_no_writes() -> None:
    masks = sc.select(network(), 0.5).draw()
    model, plain = sc.apply_masks(network(), masks), sc.apply_masks(network(), masks)
    for _ in range(3):
        for each in (model, plain):
            CHANGES["fused"](each)
        sc.apply_masks(model, masks)
        with torch.no_grad():
            for name, mask in masks.items():
                plain.get_parameter(name).mul_(mask)
    for name in masks:
        assert torch.equal(model.get_parameter(name), plain.get_parameter(name))


NEW: dict[str, Callable[[], nn.Parameter]] = {
    "a new head": lambda: nn.Parameter(torch.full((5, 36), 0.25)),
    "zeros": lambda: nn.Parameter(torch.zeros(5, 36)),
    "another size": lambda: nn.Parameter(torch.ones(7, 36)),
    "the original by hand": lambda: nn.Parameter(network()[3].weight.detach().clone()),
}
ACTIONS: dict[str, Callable[[nn.Module], object]] = {
    "restore": sc.restore,
    "make_permanent": sc.make_permanent,
    "elsewhere": lambda model: sc.global_prune(model, 0.5, include="0"),
    "gradients": lambda model: sc.gradient_prune(model, 0.5),
    "select": lambda model: sc.select(model, 0.5),
    "sparsity": sc.sparsity,
}


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_a_new_parameter_is_never_written_to(
    new: Callable[[], nn.Parameter], action: Callable[[nn.Module], object]
) -> None:
    model = sc.global_prune(network(), 0.5)
    model[3].weight = new()
    model = copy.deepcopy(model).double().float()
    expected = bits(new())
    action(model)
    assert torch.equal(bits(model[3].weight), expected)
    sc.global_prune(model, 1.0)
    assert torch.equal(bits(model[3].weight_orig), expected)
    assert torch.equal(bits(sc.restore(model)[3].weight), expected)
    assert not hasattr(model[3], "weight_orig")


def test_restoring_does_not_write_into_a_state_dict_that_was_assigned() -> None:
    model = sc.global_prune(network(), 0.5)
    mine = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {name: value.clone() for name, value in mine.items()}
    model.load_state_dict(mine, assign=True)
    sc.restore(model)
    for name, value in mine.items():
        assert torch.equal(value, kept[name]), name


def test_a_parameter_that_got_other_data_of_another_size_is_a_new_one() -> None:
    model = sc.global_prune(network(), 0.5)
    model[3].weight.data = torch.ones(2, 36)
    sc.restore(model)
    assert torch.equal(model[3].weight, torch.ones(2, 36))


def test_an_original_in_the_place_of_the_weight_is_not_pruned_itself() -> None:
    model = sc.global_prune(network(), 0.5)
    model[3].weight.data = model[3].weight_orig
    sc.global_prune(model, 0.9)
    assert same(weights(sc.restore(model)), weights(network()))


def test_tied_after_pruning() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    first, second = bits(model["a"].weight), bits(model["b"].weight)
    sc.global_prune(model, 0.5)
    model["a"].weight = model["b"].weight
    sc.global_prune(model, 0.75)
    assert torch.equal(bits(model["a"].weight_orig), second)
    sc.restore(model)
    assert torch.equal(bits(model["a"].weight), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("part", ["a", "b"])
def test_a_part_that_shares_a_weight_may_be_pruned_on_its_own(part: str) -> None:
    """What the other part keeps of the weight is older than what was trained, and not valid."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["a"].weight = model["b"].weight
    sc.global_prune(model, 0.5)
    with torch.no_grad():
        model["a"].weight += 1
    learned = bits(model["a"].weight)
    sc.global_prune(model[part], 0.25)
    assert sc.select(model, 0.5).draw()["a.weight"].logical_not().sum() == 8
    again = sc.global_prune(copy.deepcopy(model), 0.125)
    assert torch.equal(bits(again["a"].weight_orig), learned)
    assert torch.equal(bits(again["b"].weight_orig), learned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in (model, again):
            assert torch.equal(bits(sc.restore(each)["b"].weight), learned)


def test_conversions_that_make_new_parameters_keep_the_originals() -> None:
    model = sc.global_prune(network(), 0.5)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    assert same(weights(sc.restore(model)), weights(network().double()))


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float8_e5m2,
        torch.float8_e4m3fnuz,
        torch.float8_e5m2fnuz,
    ],
)
def test_a_change_of_one_value_anywhere_is_found(dtype: torch.dtype) -> None:
    """Also far inside, where blocks of it are compared; of NaN by its bits."""
    values = torch.randn(400, 300, generator=torch.Generator().manual_seed(0)).to(dtype)
    values[7, 7] = float("nan")
    for layout in (values, values.t().contiguous().t(), torch.zeros(400, 600)[:, ::2].to(dtype)):
        parameter = nn.Parameter(layout, requires_grad=False)
        original = Original(parameter.detach().clone(), parameter)
        flat, whole = parameter.numel(), torch.ones(parameter.shape, dtype=torch.bool)
        for place in (0, 1, flat // 3, flat - 2, flat - 1):
            row, column = divmod(place, 300)
            before = parameter[row, column].clone()
            for mask in (None, whole, whole[:, :1]):
                original.note_pruned(mask)
                lost = mask is not None and bool(before != 0)
                changes = ((77.0, True), (math.nan, True), (0.0, lost), (-0.0, lost))
                for value, trained in changes:
                    parameter[row, column] = torch.tensor(value).to(dtype)
                    assert original.trained is trained
                parameter[row, column] = before
                assert not original.trained


def test_no_values_are_read_where_nothing_was_written() -> None:
    """A look at each weight would make a redraw slower, and wait for a GPU."""
    model = network()
    candidates = sc.select(model, 0.5)
    sc.apply_masks(model, candidates.draw(0.5, seed=0))
    originals = [t.original for t in sc.find_targets(model)]
    assert [o.sign_of_write() for o in originals if o is not None] == ["", ""]
    sc.restore(sc.apply_masks(model, candidates.draw(0.5, seed=1)))
    sc.global_prune(model, 0.5)
    model(torch.ones(1, 2, 5, 5)).sum().backward()
    signs = [t.original.sign_of_write() for t in sc.find_targets(model) if t.original is not None]
    assert signs == ["gradient", "gradient"]
    for _ in range(3):  # a new gradient may lie where the old one lay
        sc.global_prune(model, 0.5)
        model.zero_grad()
        model(torch.ones(1, 2, 5, 5)).sum().backward()
        signs = [
            t.original.sign_of_write() for t in sc.find_targets(model) if t.original is not None
        ]
        assert signs == ["gradient", "gradient"]


@pytest.mark.parametrize("sparse", [False, True])
def test_conversions_that_swap_parameters_keep_the_originals(sparse: bool) -> None:
    """With FSDP, every conversion does; it refuses a gradient that has a weak reference."""
    embedding = nn.Embedding(6, 4, sparse=sparse)
    tied = nn.Sequential(embedding, nn.Linear(4, 6, bias=False), nn.Flatten(0))
    tied[1].weight = embedding.weight
    expected = embedding.weight.detach().clone()
    (tied[0](torch.arange(6)) if sparse else tied(torch.arange(6))).sum().backward()
    sc.global_prune(tied, 0.5, include="0")
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        tied.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert torch.equal(sc.restore(tied)[0].weight, expected.double())


def test_another_gradient_is_a_sign_of_training() -> None:
    model = network()
    for kind in ("new", "written", "none", "sparse"):
        model.zero_grad(set_to_none=True)
        model(torch.ones(1, 2, 5, 5)).sum().backward()
        weight = sc.global_prune(model, 0.5)[3].weight
        original = sc.find_targets(model)[-1].original
        assert original is not None
        assert weight is original.parameter
        assert original.sign_of_write() == ""
        if kind == "new":
            weight.grad = weight.grad.clone()
        elif kind == "written":
            weight.grad.mul_(2)
        else:
            weight.grad = None if kind == "none" else weight.grad.to_sparse()
        assert original.sign_of_write() == "gradient"
