"""What is kept beside parameters is in nobody's way: buffers, parametrizations, scripted parts."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune
from torch.optim.swa_utils import AveragedModel

import secateurs as sc
from helpers import assert_same, bits, snapshot

Step = Callable[[nn.Module], object]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))


def x() -> Tensor:
    return torch.linspace(-1, 1, 8).reshape(2, 4)


def of_inputs(model: nn.Module) -> Tensor:
    inputs = x().requires_grad_()
    model(inputs).square().sum().backward()
    assert inputs.grad is not None
    return inputs.grad


def halve(model: nn.Module) -> nn.Module:
    return sc.global_prune(model, 0.5)


def halve_gradients(model: nn.Module) -> nn.Module:
    return sc.gradient_prune(model, 0.5)


either = pytest.mark.parametrize("prune", [halve, halve_gradients])


@either
@pytest.mark.parametrize("use_buffers", [False, True])
def test_averages_of_a_model_go_on(prune: Step, use_buffers: bool) -> None:
    """They pair the buffers of the average and of the model one by one."""
    model = network()
    before = AveragedModel(model, use_buffers=use_buffers)
    while_pruned = AveragedModel(prune(model), use_buffers=use_buffers)
    for change in (lambda: None, lambda: sc.restore(model), lambda: prune(model)):
        change()
        for average in (before, while_pruned):
            average.update_parameters(model)
    assert torch.equal(before.module[0].weight, while_pruned.module[0].weight)
    sc.make_permanent(while_pruned)
    assert list(while_pruned.state_dict()) == list(before.state_dict())


@either
def test_nothing_is_a_buffer_or_in_the_state(prune: Step) -> None:
    model = network().eval()
    buffers, state = [n for n, _ in model.named_buffers()], list(model.state_dict())
    seen = dict(vars(model[0]))
    prune(model)
    assert [n for n, _ in model.named_buffers()] == buffers
    assert list(model.state_dict()) == state
    stacked = torch.func.stack_module_state([model, prune(network()).eval()])
    assert sorted(stacked[1]) == sorted(buffers)
    values = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert torch.equal(torch.func.functional_call(model, values, (x(),)), model(x()))
    assert vars(sc.restore(model)[0]) == seen


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "deepcopy of a pickle"])
def test_copies_move_on_their_own(way: str) -> None:
    model = halve(network())
    other = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    other = copy.deepcopy(other) if " of " in way else other
    other.double()
    assert model[0].weight_orig.dtype == torch.float32
    assert other[0].weight_orig.dtype == torch.float64
    assert torch.equal(sc.restore(other)[0].weight, network()[0].weight.double())
    assert torch.equal(sc.restore(model)[0].weight, network()[0].weight)


def test_a_module_with_an_apply_of_its_own_keeps_it() -> None:
    model, calls = nn.Linear(4, 4), []

    def apply(fn: Any, recurse: bool = True) -> nn.Module:
        calls.append(1)
        return nn.Linear._apply(model, fn, recurse)

    model._apply = apply
    assert halve(model).half().weight_orig.dtype == torch.half
    assert sc.restore(model)._apply is apply
    assert calls == [1]


class Own(nn.Linear):
    """Has buffers of its own where pruning would keep things beside a bias and a weight."""

    def __init__(self, *names: str) -> None:
        super().__init__(4, 4)
        for name in names:
            self.register_buffer(name, torch.full((4,), 7.0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + sum(b.sum() for b in self._buffers.values() if b.numel() == 4)


@pytest.mark.parametrize("name", ["bias_orig", "bias_backward_mask", "weight_orig", "other_orig"])
def test_a_buffer_of_the_module_s_own_survives(name: str) -> None:
    model = Own(name)
    before, own, bias = of_inputs(model), getattr(model, name), bits(model.bias)
    steps: list[Step] = [sc.restore, sc.sparsity, sc.make_permanent, halve_gradients, of_inputs]
    steps += [sc.restore] if name == "weight_orig" else [halve, sc.sparsity, sc.restore]
    for step in steps:
        step(model)
        assert getattr(model, name) is own
        assert torch.equal(bits(model.bias), bias)
    assert torch.equal(own, torch.full((4,), 7.0))
    assert torch.equal(of_inputs(model), before)
    twin = pickle.loads(pickle.dumps(halve_gradients(model)))
    assert torch.equal(getattr(sc.restore(twin), name), own)


@pytest.mark.parametrize(
    ("name", "prune"),
    [
        ("bias_orig", lambda model: sc.global_prune(model, 0.5, layers="all")),
        ("weight_orig", halve),
        ("weight_backward_mask", halve_gradients),
    ],
)
def test_pruning_is_refused_if_the_module_uses_the_name_itself(name: str, prune: Step) -> None:
    model = Own(name)
    before = snapshot(model)
    with pytest.raises(sc.InvalidArgumentError, match=f"already has an attribute {name}"):
        prune(model)
    assert_same(snapshot(model), before)
    assert torch.equal(getattr(model, name), torch.full((4,), 7.0))


class Twice(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 2 * values

    def right_inverse(self, values: Tensor) -> Tensor:
        return values / 2


ON_THE_WEIGHT: dict[str, tuple[Step, Step]] = {
    "weight_norm": (
        lambda m: parametrizations.weight_norm(m[0]),
        lambda m: parametrize.remove_parametrizations(m[0], "weight"),
    ),
    "parametrization": (
        lambda m: parametrize.register_parametrization(m[0], "weight", Twice()),
        lambda m: parametrize.remove_parametrizations(m[0], "weight"),
    ),
    "older weight_norm": (
        lambda m: torch.nn.utils.weight_norm(m[0]),
        lambda m: torch.nn.utils.remove_weight_norm(m[0]),
    ),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize(("put", "remove"), ON_THE_WEIGHT.values(), ids=ON_THE_WEIGHT)
def test_a_parametrization_put_on_after_pruning_is_named(put: Step, remove: Step) -> None:
    model = halve(network())
    put(model)
    other = model[2].weight.detach().clone()
    named = r"^0\.weight: .*remove_parametrizations.*make_permanent"
    for step in (lambda: sc.global_prune(model, 0.3, exclude="0"), lambda: sc.apply_masks(
        model, sc.select(model, 0.5, exclude="0").draw(), "gradient"
    )):  # fmt: skip
        with pytest.raises(sc.InvalidArgumentError, match=named):
            step()
        assert torch.equal(model[2].weight, other)
    assert sc.sparsity(model).total == 12
    with pytest.raises(sc.InvalidArgumentError, match=named):
        sc.restore(model)
    assert torch.equal(model[2].weight, network()[2].weight)  # what can be restored is
    remove(model)
    before = bits(model[0].weight)
    sc.make_permanent(model)
    assert torch.equal(bits(sc.restore(model)[0].weight), before)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore::secateurs.LostTrainingWarning")  # norms change the last bits
@pytest.mark.parametrize("way", ["restore", "deepcopy", "a new head", "a head in between"])
@pytest.mark.parametrize(("put", "remove"), ON_THE_WEIGHT.values(), ids=ON_THE_WEIGHT)
def test_originals_outlast_a_parametrization(put: Step, remove: Step, way: str) -> None:
    model, head = halve(network()), torch.full((4, 4), 7.0)
    if way == "a new head":
        model[0].weight = nn.Parameter(head)
    elif way == "a head in between":
        kept, model[0].weight = model[0].weight, nn.Parameter(head)
        model[0].weight = kept
    put(model)
    remove(model)
    if way == "deepcopy":
        model = copy.deepcopy(model)
    sc.restore(model)
    if way == "a new head":
        torch.testing.assert_close(model[0].weight, nn.Parameter(head))
    else:
        assert torch.equal(bits(model[0].weight), bits(network()[0].weight))


USING_THE_NAME: dict[str, Callable[[nn.Module, str], object]] = {
    "spectral_norm": nn.utils.spectral_norm,
    "l1_unstructured": lambda layer, name: torch_prune.l1_unstructured(layer, name, 0.5),
    "random_structured": lambda layer, name: torch_prune.random_structured(layer, name, 1, 0),
    "custom": lambda layer, name: torch_prune.custom_from_mask(
        layer, name, torch.ones_like(getattr(layer, name))
    ),
    "global": lambda layer, name: torch_prune.global_unstructured(
        [(layer, name)], torch_prune.L1Unstructured, amount=2
    ),
}


@either
@pytest.mark.parametrize("put", USING_THE_NAME.values(), ids=USING_THE_NAME)
def test_what_uses_the_name_of_an_original_is_refused_and_nothing_is_lost(
    prune: Step, put: Callable[[nn.Module, str], object]
) -> None:
    model = prune(network().eval())
    before, output, weight = snapshot(model), of_inputs(model), model[0].weight
    with pytest.raises(sc.InvalidArgumentError, match=r"^weight of a Linear is .*restore\(model\)"):
        put(model[0], "weight")
    assert model[0].weight is weight
    assert list(snapshot(model)) == list(before)  # in the same order
    assert_same(snapshot(model), before)
    assert torch.equal(of_inputs(model), output)
    for step in (sc.restore, sc.restore, prune, sc.restore):
        step(model)
    assert_same(snapshot(model), snapshot(network()))
    put(model[0], "weight")


@either
@pytest.mark.parametrize("put", USING_THE_NAME.values(), ids=USING_THE_NAME)
def test_what_was_put_on_before_pruning_stays_in_force(
    prune: Step, put: Callable[[nn.Module, str], object]
) -> None:
    model = network().eval()
    put(model[0], "weight")
    dense = of_inputs(model)
    with pytest.raises(sc.InvalidArgumentError, match=r"0\.weight is not a parameter"):
        prune(model)
    pruning = sc.global_prune if prune is halve else sc.gradient_prune
    pruning(model, 0.5, exclude="0")
    assert not torch.equal(of_inputs(model), dense)
    assert torch.equal(of_inputs(sc.restore(model)), dense)
    surrogate = sc.Diversified(model, 0.5, 1.0, exclude="0")
    assert not torch.equal(of_inputs(surrogate), dense)
    assert torch.equal(of_inputs(model), dense)


def test_a_parametrization_put_on_inside_a_block_is_named_when_it_ends() -> None:
    model = network()
    with pytest.raises(sc.InvalidArgumentError, match=r"^0\.weight: "), sc.pruned(model, 0.5):
        parametrizations.weight_norm(model[0])
    assert torch.equal(model[2].weight, network()[2].weight)
    sc.restore(sc.make_permanent(model))
    model = sc.global_prune(network(), 0.3, include="2")
    outer = snapshot(model)["2.weight"]
    with pytest.raises(sc.InvalidArgumentError, match=r"^0\.weight: "), sc.pruned(model, 0.5):
        parametrizations.weight_norm(model[0])
    assert torch.equal(bits(model[2].weight), outer)  # the pruning that stood before is back


@either
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("way", ["restore", "remove", "again", "deepcopy", "make_permanent"])
def test_a_parametrization_of_another_tensor_goes_on(prune: Step, before: bool, way: str) -> None:
    model, plain = network().eval(), network().eval()
    parametrize.register_parametrization(plain[0], "bias", Twice())
    dense, pruned = of_inputs(plain), of_inputs(prune(network().eval()))
    steps: list[Step] = [
        lambda m: parametrize.register_parametrization(m[0], "bias", Twice()),
        prune,
    ]
    for step in steps if before else reversed(steps):
        step(model)
    kind = type(plain[0])
    torch.testing.assert_close(of_inputs(model), pruned)
    if way == "remove":
        parametrize.remove_parametrizations(model[0], "bias")
        kind = nn.Linear
    elif way == "again":
        prune(model)
    elif way == "deepcopy":
        model = copy.deepcopy(model)
    torch.testing.assert_close(of_inputs(model), pruned)
    (sc.make_permanent if way == "make_permanent" else sc.restore)(model)
    if prune is halve_gradients or way != "make_permanent":
        torch.testing.assert_close(of_inputs(model), dense)
    assert type(model[0]).__name__ == kind.__name__
    assert len(type(model[0]).__mro__) == len(kind.__mro__)
    assert torch.equal(model[0].bias, plain[0].bias)
    assert parametrize.is_parametrized(model[0]) is (way != "remove")


def test_the_class_of_a_parametrized_module_comes_back() -> None:
    model = network()
    parametrize.register_parametrization(model[0], "bias", Twice())
    kind = type(model[0])
    assert type(sc.restore(halve_gradients(model))[0]) is kind


@pytest.mark.parametrize("put", [one for one, _ in list(ON_THE_WEIGHT.values())[:2]])
def test_a_parametrization_of_a_weight_whose_gradients_are_pruned_is_named(put: Step) -> None:
    model = halve_gradients(network())
    put(model)
    with pytest.raises(sc.FailureError, match=r"put on after gradient pruning.*restore\(model\)"):
        of_inputs(model)
    of_inputs(sc.restore(model))


SCRIPTED: dict[str, Callable[[], nn.Module]] = {
    "scripted": lambda: torch.jit.script(nn.Linear(4, 4)),
    "traced": lambda: torch.jit.trace(nn.Linear(4, 4), x()),
}


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning"
)
@pytest.mark.parametrize("part", SCRIPTED.values(), ids=SCRIPTED)
def test_scripted_parts_are_counted_around_and_restored_around(
    part: Callable[[], nn.Module],
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), part(), nn.Linear(4, 4)).eval()
    before, dense = snapshot(model), of_inputs(model)
    for function in (sc.restore, sc.make_permanent):
        function(model)
    for prune in (halve, halve_gradients):
        assert sc.sparsity(prune(model)).ratio == 0.5
        assert not torch.equal(of_inputs(model), dense)
        sc.restore(copy.deepcopy(model))
        assert_same(snapshot(sc.restore(model)), before)
    with sc.pruned(model, 0.5):
        pass
    assert torch.equal(of_inputs(model), dense)
    assert sc.restore(torch.jit.script(nn.Linear(2, 2))) is not None


UNPRUNABLE: dict[str, Step] = {
    "parametrized": lambda m: parametrizations.weight_norm(m[0]),
    "torch's own pruning": lambda m: torch_prune.l1_unstructured(m[0], "weight", 0.5),
    "lazy": lambda m: m.__setitem__(0, nn.LazyLinear(4)),
    "meta": lambda m: m.__setitem__(0, nn.Linear(4, 4, device="meta")),
    "integers": lambda m: setattr(
        m[0], "weight", nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    ),
}


@pytest.mark.parametrize("put", UNPRUNABLE.values(), ids=UNPRUNABLE)
def test_counting_and_restoring_need_nothing_that_can_be_pruned(put: Step) -> None:
    model = network()
    put(model)
    sc.global_prune(model, 0.5, exclude="0")
    assert [layer.name for layer in sc.sparsity(model)] == ["2.weight"]
    assert sc.sparsity(model).ratio == 0.5
    sc.restore(sc.make_permanent(model))


def test_masks_drawn_in_inference_mode_take_part_in_autograd() -> None:
    model, expected = nn.Linear(4, 4), torch.ones(4, requires_grad=True)
    x = torch.ones(4, requires_grad=True)
    sc.gradient_prune(copy.deepcopy(model), 0.5)(expected).sum().backward()
    with torch.inference_mode():
        sc.gradient_prune(model, 0.5)
    model(x).sum().backward()
    assert torch.equal(x.grad, expected.grad)
