"""Beside torch.nn.utils.prune, whose convention for counts this package follows; from and to it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from secateurs import (
    InvalidArgumentError,
    Masks,
    apply_masks,
    from_torch_prune,
    global_prune,
    gradient_prune,
    restore,
    select,
    sparsity,
    to_torch_prune,
)
from secateurs.torch_prune import join_state_dict, split_state_dict


def make_net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 7))


@pytest.mark.parametrize("p_prune", [0.01, 0.3, 0.5, 0.77, 0.999, 1.0])
def test_without_ties_the_masks_are_those_of_torch_prune(p_prune: float) -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv1d(4, 5, 2), nn.Linear(5, 7))

    ours, theirs = build(), build()
    assert len(torch.cat([m.weight.abs().flatten() for m in ours]).unique()) == 108 + 40 + 35
    prune.global_unstructured(
        [(module, "weight") for module in theirs], prune.L1Unstructured, amount=p_prune
    )
    masks = select(ours, p_prune).draw()
    for i, module in enumerate(theirs):
        assert torch.equal(masks[f"{i}.weight"], module.weight_mask.bool())

    masks = select(ours, p_prune, scope="layer").draw()
    for i, module in enumerate(build()):
        prune.l1_unstructured(module, "weight", p_prune)
        assert torch.equal(masks[f"{i}.weight"], module.weight_mask.bool())


def torch_pruned() -> nn.Sequential:
    """A network pruned twice in one layer, and in a bias."""
    model = make_net()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.ln_structured(model[0], "weight", 0.25, n=2, dim=0)
    prune.random_unstructured(model[2], "weight", 0.3)
    prune.l1_unstructured(model[2], "bias", 2)
    return model


def test_a_model_of_torch_prune_is_taken_over() -> None:
    model, x = torch_pruned(), torch.randn(2, 3, 8, 8)
    before = model(x)
    parameters = {id(p) for p in model.parameters()}
    order = [name.removesuffix("_orig") for name, _ in model.named_parameters()]
    dense = {n.removesuffix("_orig"): p.detach().clone() for n, p in model.named_parameters()}
    kept = {n.removesuffix("_mask"): m.bool() for n, m in model.named_buffers()}
    assert from_torch_prune(model) is model
    assert torch.equal(model(x), before)
    assert not prune.is_pruned(model) and not dict(model.named_buffers())
    assert {id(p) for p in model.parameters()} == parameters
    assert [name for name, _ in model.named_parameters()] == order
    for name, keep in kept.items():
        assert torch.equal(model.get_parameter(name) != 0, keep)
    copy.deepcopy(model)  # torch.nn.utils.prune's cannot be copied
    restore(model)
    assert all(torch.equal(p, dense[name]) for name, p in model.named_parameters())


def test_a_model_goes_to_torch_prune_and_back() -> None:
    model, x = make_net(), torch.randn(2, 3, 8, 8)
    dense = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    before, names = global_prune(model, 0.6)(x), [name for name, _ in model.named_parameters()]
    state = copy.deepcopy(model.state_dict())
    assert to_torch_prune(model) is model and prune.is_pruned(model)
    assert torch.equal(model(x), before)
    assert torch.equal(model[0].weight_orig, dense["0.weight"])
    from_torch_prune(model)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(torch.equal(v, state[name]) for name, v in model.state_dict().items())
    to_torch_prune(model)
    model(x).sum().backward()
    optimizer.step()  # the optimizer has what is weight_orig now
    assert not torch.equal(model[0].weight_orig, dense["0.weight"])
    assert torch.equal(model[0].weight_orig == 0, dense["0.weight"] == 0)
    for module in (model[0], model[2]):
        prune.remove(module, "weight")
    assert sparsity(model).zeros == round(0.6 * (108 + 1008))


def test_trained_and_repaired_weights_keep_what_they_have_now() -> None:
    model = global_prune(make_net(), 0.5)
    with torch.no_grad():
        model[0].weight.mul_(2)  # as training under held masks
    trained, x = model[0].weight.detach().clone(), torch.randn(2, 3, 8, 8)
    before = model(x)
    to_torch_prune(model)
    assert torch.equal(model(x), before) and torch.equal(model[0].weight_orig, trained)
    with torch.no_grad():
        from_torch_prune(model)[2].weight.fill_(1)  # what was pruned came back
    assert to_torch_prune(model)[2].weight_mask.all()


def test_masks_go_to_torch_prune() -> None:
    model = make_net()
    masks = select(model, 0.4).draw()
    to_torch_prune(model, masks)
    assert torch.equal(model[2].weight_mask.bool(), masks["2.weight"])


def test_tied_weights_stay_tied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    to_torch_prune(global_prune(model, 0.5))
    assert model[0].weight_orig is model[1].weight_orig
    assert from_torch_prune(model)[0].weight is model[1].weight
    assert sparsity(model).ratio == 0.5


def test_a_recurrent_layer_computes_with_what_it_got_back() -> None:
    model, x = nn.LSTM(3, 4), torch.randn(5, 2, 3)
    prune.l1_unstructured(model, "weight_hh_l0", 0.5)
    model(x)  # its hook makes a new tensor
    from_torch_prune(model)
    with torch.no_grad():
        model.weight_hh_l0.zero_()
    fresh = nn.LSTM(3, 4)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(x)[0], fresh(x)[0])


def test_a_state_dict_is_split_and_joined() -> None:
    model, x = torch_pruned(), torch.randn(2, 3, 8, 8)
    state = model.state_dict()
    dense, masks = split_state_dict(state)
    fresh = make_net()
    fresh.load_state_dict(dense)
    assert torch.equal(apply_masks(fresh, masks)(x), model(x))
    joined = join_state_dict(dense, masks)
    assert joined.keys() == state.keys() and joined._metadata == state._metadata
    assert all(torch.equal(joined[key], state[key]) for key in state)
    again = make_net()
    for module, name in ((again[0], "weight"), (again[2], "weight"), (again[2], "bias")):
        prune.identity(module, name)
    again.load_state_dict(joined)
    assert torch.equal(again(x), model(x))


def shared_but_pruned_once() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    prune.l1_unstructured(model[0], "weight", 0.5)
    return model


def shared_but_pruned_apart() -> nn.Module:
    model = shared_but_pruned_once()
    prune.l1_unstructured(model[1], "weight", 0.25)
    return model


def soft() -> nn.Module:
    return prune.custom_from_mask(nn.Linear(2, 2), "weight", torch.full((2, 2), 0.5))


def of_both() -> nn.Module:
    model = torch_pruned()
    apply_masks(model, Masks.from_tensors({"0.bias": torch.zeros(4, dtype=torch.bool)}))
    return model


def unwritable() -> nn.Module:
    layer = nn.Linear(4, 4, bias=False)
    layer.weight = nn.Parameter(torch.ones(1, 4).expand(4, 4))
    return prune.identity(layer, "weight")


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(2, 2), "nothing in the model was pruned by torch.nn.utils.prune"),
        (soft, "the mask of weight has values other than 0 and 1"),
        (shared_but_pruned_once, "weight is shared by several modules"),
        (shared_but_pruned_apart, "weight is shared by several modules"),
        (of_both, "other parameters of the model are pruned by secateurs"),
        (unwritable, "elements of weight share memory"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_and_unchanged(build, words: str) -> None:
    model = build()
    names, buffers = list(model.state_dict()), dict(model.named_buffers())
    with pytest.raises(InvalidArgumentError, match=words):
        from_torch_prune(model)
    assert list(model.state_dict()) == names
    assert dict(model.named_buffers()).keys() == buffers.keys()
    assert prune.is_pruned(model) == bool(buffers)


def with_own_mask() -> nn.Module:
    model = nn.Linear(4, 4)
    model.register_buffer("weight_mask", torch.ones(1))
    return global_prune(model, 0.5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (make_net, "the model is not pruned"),
        (lambda: gradient_prune(make_net(), 0.5), "cannot prune the backward pass alone"),
        (with_own_mask, "has an attribute weight_mask of its own"),
    ],
)
def test_what_torch_prune_cannot_have_is_refused(build, words: str) -> None:
    model = build()
    names = list(model.state_dict())
    with pytest.raises(InvalidArgumentError, match=words):
        to_torch_prune(model)
    assert list(model.state_dict()) == names


def test_state_dicts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="no NAME_orig with a NAME_mask"):
        split_state_dict({"weight_orig": torch.ones(2), "weight_u": torch.ones(2)})
    soft_mask = {"a.weight_orig": torch.ones(2), "a.weight_mask": torch.full((2,), 0.5)}
    with pytest.raises(InvalidArgumentError, match=r"the mask of a\.weight has values other"):
        split_state_dict(soft_mask)
    masks = select(nn.Linear(2, 2), 0.5).draw()
    for state in ({}, {"weight": torch.ones(2)}, {"weight": "extra state"}):
        with pytest.raises(InvalidArgumentError, match="the state dict has no 'weight' of shape"):
            join_state_dict(state, masks)
    for name in ("weight_orig", "weight_mask"):
        with pytest.raises(InvalidArgumentError, match=f"has a '{name}' of its own"):
            join_state_dict({"weight": torch.ones(2, 2), name: torch.ones(3)}, masks)
    for given in (None, [1]):
        with pytest.raises(InvalidArgumentError, match="state must be a state dict, got"):
            split_state_dict(given)
        with pytest.raises(InvalidArgumentError, match="state must be a state dict, got"):
            join_state_dict(given, masks)
        with pytest.raises(InvalidArgumentError, match=r"model must be a torch\.nn\.Module, got"):
            from_torch_prune(given)


def test_what_only_looks_like_a_pruned_parameter_stays() -> None:
    state = torch_pruned().state_dict()
    own = {
        "a": torch.zeros(2),
        "a_orig": torch.ones(2),
        "a_mask": torch.ones(2),
        "b_orig": "extra state",
        "b_mask": "extra state",
    }
    dense, _ = split_state_dict(state | own)
    assert {name: dense[name] for name in own} == own


def test_to_torch_prune_in_inference_mode_leaves_a_model_that_trains() -> None:
    model = make_net()
    with torch.inference_mode():
        to_torch_prune(global_prune(model, 0.5))
    model = copy.deepcopy(model)
    model(torch.ones(1, 3, 8, 8)).sum().backward()
    assert model[0].weight_orig.grad.count_nonzero() == model[0].weight_mask.count_nonzero()
