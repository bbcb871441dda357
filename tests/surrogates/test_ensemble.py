"""An ensemble is the mean of its members' logits."""

import pytest
import torch
from surrogate_cases import blocks, images, oracle
from torch import nn

import secateurs as sc
from secateurs.surrogates import mup


def test_the_mean_of_diversified_members() -> None:
    first, second = blocks(), nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    both, x = sc.ensemble([first, second], 0.5, 0.5, seed=4), images()
    logits = both(x)
    wanted = [oracle(member.network, member.masks)(x) for member in both]
    assert torch.equal(logits, torch.stack(wanted).mean(0))
    assert [member.seed for member in both] == [4, 5]
    assert len(both) == 2
    assert len(list(both.parameters())) == len(list(first.parameters())) + 2


def test_calls_of_the_ensemble_reach_its_members() -> None:
    stepwise = sc.Diversified(blocks(), 0.6, 0.5, redraw="step")
    both, x = sc.Ensemble([stepwise, mup(blocks(), redraw="step"), blocks()]), images()
    both.aim(torch.tensor([0, 1]))
    first = both(x)
    assert torch.equal(both(x), first)
    both.step()
    assert not torch.equal(both(x), first)
    with both.dense():
        assert torch.allclose(both(x), blocks()(x))
    with both.frozen():
        kept = both(x)
        both.step()
        assert torch.equal(both(x), kept)
    both.restart(0)
    both.aim(torch.tensor([0, 1]))
    assert torch.equal(both(x), first)


def test_ensembles_of_ensembles() -> None:
    x, inner = images(), sc.ensemble([blocks(), blocks()], 0.5, 0.5)
    wrapped = nn.Sequential(nn.Identity(), sc.Diversified(blocks(), 0.5, 0.5))
    outer = sc.Ensemble([inner, wrapped])
    with outer.dense():
        assert torch.allclose(outer(x), blocks()(x))
    assert not torch.allclose(outer(x), blocks()(x))


def test_errors_say_what_to_write() -> None:
    with pytest.raises(sc.InvalidArgumentError, match="needs members"):
        sc.ensemble([])
    with pytest.raises(sc.InvalidArgumentError, match="needs members"):
        sc.Ensemble(blocks())  # type: ignore[arg-type]
    with pytest.raises(sc.InvalidArgumentError, match=r"for one network write \[model\]"):
        sc.ensemble(blocks(), 0.3, 0.5)  # type: ignore[arg-type]
    with pytest.raises(sc.InvalidArgumentError, match=r"member 0 .* is no surrogate"):
        sc.ensemble([blocks()])
    with pytest.raises(sc.InvalidArgumentError, match=r"must be nn\.Modules"):
        sc.Ensemble([torch.relu])  # type: ignore[list-item]
    odd = sc.Ensemble([blocks(), nn.Sequential(nn.Flatten(), nn.Linear(192, 4))])
    with pytest.raises(sc.InvalidArgumentError, match="different numbers of classes: 5, 4"):
        odd(images())
