"""Surrogates under torch's compiler and under torch.func."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from surrogate_cases import blocks, images, input_gradient, oracle
from torch import Tensor, func, nn
from torch._dynamo.testing import CompileCounter
from torch.autograd import forward_ad

import secateurs as sc
from secateurs.pruning import PRUNE_TYPES
from secateurs.surrogates import mup

WRAPPINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "alone": lambda surrogate: surrogate,
    "behind a layer": lambda surrogate: nn.Sequential(nn.Identity(), surrogate),
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Any:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("prune_type", "wrapping"), [("global", "alone"), ("gradient", "behind a layer")]
)
def test_a_compiled_surrogate_draws_and_is_compiled_once(prune_type: str, wrapping: str) -> None:
    plain, surrogate = (sc.Diversified(blocks(), 0.6, 0.5, prune_type=prune_type) for _ in range(2))
    counter, x = CompileCounter(), images()
    compiled = torch.compile(WRAPPINGS[wrapping](surrogate), backend=counter)
    assert torch.equal(input_gradient(compiled, x), input_gradient(plain, x))
    assert counter.frame_count == 1
    for _ in range(3):
        assert torch.equal(input_gradient(compiled, x), input_gradient(plain, x))
    assert counter.frame_count == 1
    assert surrogate.draws == 4
    with surrogate.dense(), plain.dense():
        assert torch.equal(compiled(x), plain(x))


@pytest.mark.parametrize(("prune_type", "reentrant"), [("global", False), ("gradient", None)])
def test_layers_that_are_compiled_by_themselves(prune_type: str, reentrant: bool | None) -> None:
    plain, model, x = sc.Diversified(blocks(), 0.6, 0.5, prune_type=prune_type), blocks(), images()
    model.block.compile(backend="eager")
    model.reentrant = reentrant
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    for _ in range(3):
        torch.testing.assert_close(input_gradient(surrogate, x), input_gradient(plain, x))


def test_one_graph_is_that_of_the_network() -> None:
    surrogate, other = (sc.Diversified(blocks(), 0.6, 0.5) for _ in range(2))
    compiled = torch.compile(surrogate, backend="eager", fullgraph=True)
    assert torch.equal(compiled(images()), other(images()))
    around = WRAPPINGS["behind a layer"](surrogate)
    compiled = torch.compile(around, backend="eager", fullgraph=True)
    with pytest.raises(RuntimeError, match=r"compile surrogate\.network"):
        compiled(images())
    assert all(isinstance(p, nn.Parameter) for p in surrogate.parameters())


Transformed = Callable[[Callable[[Tensor], Tensor], Tensor], Any]
TRANSFORMS: dict[str, Transformed] = {
    "grad": lambda call, x: func.grad(lambda v: call(v).square().sum())(x),
    "vjp": lambda call, x: func.vjp(call, x)[1](torch.ones(len(x), 5)),
    "jacrev": lambda call, x: func.jacrev(call)(x),
    "vmap": lambda call, x: func.vmap(lambda v: call(v[None])[0])(x),
    "vmap of grad": lambda call, x: func.vmap(func.grad(lambda v: call(v[None]).square().sum()))(x),
    "jvp": lambda call, x: func.jvp(call, (x,), (torch.ones_like(x),)),
    "jacfwd": lambda call, x: func.jacfwd(call)(x),
    "forward_ad": lambda call, x: dual(call, x),
}


def dual(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    with forward_ad.dual_level():
        found = call(forward_ad.make_dual(x, torch.ones_like(x)))
        return forward_ad.unpack_dual(found).tangent


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_see_one_draw(prune_type: str, name: str) -> None:
    model, x, transform = blocks(), images(), TRANSFORMS[name]
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    if prune_type == "gradient" and name in ("jvp", "jacfwd", "forward_ad"):
        with pytest.raises(sc.FailureError, match="use reverse mode"):
            transform(surrogate, x)
        return
    found = transform(surrogate, x)
    wanted = transform(oracle(model, surrogate.masks, prune_type), x)
    assert surrogate.draws == 1
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_functional_call_prunes_what_it_is_given(prune_type: str) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    ids = {name: id(p) for name, p in model.named_parameters()}
    given = {name: p.detach() * 2 for name, p in surrogate.named_parameters()}

    def loss(parameters: dict[str, Tensor], module: nn.Module) -> Tensor:
        return func.functional_call(module, parameters, (x,)).square().sum()

    found = func.grad(loss)(given, surrogate)
    wanted = blocks()
    with torch.no_grad():
        for name, parameter in wanted.named_parameters():
            parameter.copy_(given[name])
    wanted = oracle(wanted, surrogate.masks, prune_type)
    wanted(x).square().sum().backward()
    for name, parameter in wanted.named_parameters():
        grad = parameter.grad
        assert grad is not None
        if prune_type == "global" and name in surrogate.masks:
            grad = grad * surrogate.masks[name]
        torch.testing.assert_close(found[name], grad)
    assert {name: id(p) for name, p in model.named_parameters()} == ids
    assert all(target.parameter is model.get_parameter(target.name) for target in surrogate.targets)


def test_an_ensemble_of_weights_under_vmap() -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.6, 0.5)
    stacked = {n: torch.stack([p, p * 0.5]).detach() for n, p in model.named_parameters()}
    with surrogate.frozen():
        found = func.vmap(lambda p: func.functional_call(surrogate, p, (x,)))(stacked)
        assert torch.allclose(found[0], surrogate(x), atol=1e-6)


def test_mup_says_that_it_cannot_score_there() -> None:
    surrogate, x = mup(blocks(), 0.3), images()
    with pytest.raises(sc.InvalidArgumentError, match="once before"):
        func.jacrev(surrogate)(x)
    surrogate(x)
    with surrogate.frozen():
        assert func.jacrev(surrogate)(x).shape == (2, 5, *x.shape)


@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("record", [torch.jit.trace, torch.export.export])
def test_a_graph_that_is_recorded_holds_no_draw(
    record: Any, wrapping: str, prune_type: str
) -> None:
    model, x = blocks(), images()
    surrogate = sc.Diversified(model, 0.5, 0.5, prune_type=prune_type)
    with pytest.raises(sc.FailureError, match=r"exported or traced.*apply_masks"):
        record(WRAPPINGS[wrapping](surrogate), (x,))
    assert surrogate.draws == 0
    with surrogate.dense():
        made = record(WRAPPINGS[wrapping](surrogate), (x,))
    call = made.module() if record is torch.export.export else made
    torch.testing.assert_close(call(x), model(x))
    assert torch.equal(surrogate(x), oracle(model, surrogate.masks, prune_type)(x))
