"""What is computed again in a backward pass sees the masks of the first time."""

import copy
from collections.abc import Callable

import pytest
import torch
from surrogate_cases import Blocks, blocks, images
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import secateurs as sc

ORDERS = [(0, 1, 2), (2, 0, 1)]


def gradients(
    model: Blocks, prune_type: str, order: tuple[int, ...], around: bool | None, *, same_input: bool
) -> list[Tensor]:
    """Three calls, three backward passes in some order: what reaches inputs and weights."""
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type, seed=3)
    leaves = [images().requires_grad_() for _ in range(1 if same_input else 3)]
    call: Callable[[Tensor], Tensor] = surrogate
    if around is not None:

        def call(x: Tensor) -> Tensor:
            return checkpoint(surrogate, x, use_reentrant=around)

    passes = [call(leaves[i % len(leaves)]).square().sum() * (i + 1) for i in range(3)]
    for number in order:
        passes[number].backward()
    found = [*leaves, *(p for p in model.parameters() if p.requires_grad)]
    assert surrogate.draws == 3
    return [f.grad for f in found if f.grad is not None]


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("same_input", [False, True])
@pytest.mark.parametrize(
    ("inside", "around"),
    [(False, None), (True, None), (None, False), (None, True), (False, False), (True, True)],
)
def test_checkpoints_do_not_change_gradients(
    prune_type: str,
    order: tuple[int, ...],
    trainable: bool,
    same_input: bool,
    inside: bool | None,
    around: bool | None,
) -> None:
    plain = blocks().requires_grad_(trainable)
    checked = copy.deepcopy(plain)
    checked.reentrant = inside
    wanted = gradients(plain, prune_type, order, None, same_input=same_input)
    found = gradients(checked, prune_type, order, around, same_input=same_input)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_several_calls_in_one_checkpoint() -> None:
    def run(wrap: bool) -> Tensor:
        first, second = (sc.Diversified(blocks(), 0.6, 0.5, seed=seed) for seed in (1, 2))
        leaf = images().requires_grad_()

        def both(x: Tensor) -> Tensor:
            return first(x) * second(x) + first(x).square()

        logits = checkpoint(both, leaf, use_reentrant=False) if wrap else both(leaf)
        logits.sum().backward()
        assert first.draws == 2
        assert leaf.grad is not None
        return leaf.grad

    torch.testing.assert_close(run(True), run(False))


def test_a_graph_that_is_kept_is_computed_again_twice() -> None:
    surrogate = sc.Diversified(blocks(), 0.6, 0.5)
    leaf = images().requires_grad_()
    loss = checkpoint(surrogate, leaf, use_reentrant=False).square().sum()
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    surrogate(images())
    (second,) = torch.autograd.grad(loss, leaf)
    assert torch.equal(first, second)


def test_the_model_is_left_alone_after_it_is_computed_again() -> None:
    model = blocks()
    model.reentrant = False
    weights = {name: (id(p), p.clone()) for name, p in model.named_parameters()}
    surrogate = sc.Diversified(model, 0.6, 0.5)
    surrogate(images().requires_grad_()).sum().backward()
    for name, parameter in model.named_parameters():
        assert id(parameter) == weights[name][0]
        assert torch.equal(parameter, weights[name][1])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_unknown_kind_of_checkpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a coming version of torch kept the function elsewhere."""
    monkeypatch.setattr("secateurs.surrogates.activation_checkpointing._FUNCTIONS", ("elsewhere",))
    surrogate = sc.Diversified(blocks(), 0.6, 0.5)
    with pytest.raises(sc.FailureError, match=r"without torch\.utils\.checkpoint"):
        checkpoint(surrogate, images().requires_grad_(), use_reentrant=False)
