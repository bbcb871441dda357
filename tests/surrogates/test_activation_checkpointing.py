"""What a backward pass would compute again, without the masks of its call, is refused."""

import pytest
import torch
from surrogate_cases import blocks, images
from torch.utils.checkpoint import checkpoint

import secateurs as sc
from secateurs.pruning import PRUNE_TYPES

both_ways = pytest.mark.parametrize("reentrant", [False, True])


@both_ways
@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_inside_the_network(prune_type: str, reentrant: bool) -> None:
    model, x = blocks(), images().requires_grad_()
    model.reentrant = reentrant
    before = {name: (id(p), p.clone()) for name, p in model.named_parameters()}
    surrogate = sc.Diversified(model, 0.6, 0.5, prune_type=prune_type)
    with pytest.raises(sc.FailureError, match=r"gradient_checkpointing_disable\(\)"):
        surrogate(x)
    for name, parameter in model.named_parameters():
        assert id(parameter) == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert not any(module._forward_pre_hooks for module in model.modules())
    with torch.no_grad():
        surrogate(x)  # nothing is computed again
    with surrogate.dense():
        checked = torch.autograd.grad(surrogate(x).sum(), x) if not reentrant else None
    model.reentrant = None
    if checked is not None:
        torch.testing.assert_close(checked, torch.autograd.grad(model(x).sum(), x))


@both_ways
@pytest.mark.parametrize("prune_type", PRUNE_TYPES)
def test_around_the_surrogate(prune_type: str, reentrant: bool) -> None:
    surrogate = sc.Diversified(blocks(), 0.6, 0.5, prune_type=prune_type)
    for call in (surrogate, lambda x: surrogate(x) * 2):
        with pytest.raises(sc.FailureError, match="without checkpoint"):
            checkpoint(call, images().requires_grad_(), use_reentrant=reentrant)
    assert surrogate.draws == 0


@both_ways
def test_what_ran_dense_is_not_computed_again_pruned(reentrant: bool) -> None:
    surrogate = sc.Diversified(blocks(), 0.6, 0.5)
    with surrogate.dense():
        loss = checkpoint(surrogate, images().requires_grad_(), use_reentrant=reentrant).sum()
    with pytest.raises(sc.FailureError, match="by the backward pass itself"):
        loss.backward()
