"""Threads that prune one model at the same time."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import original_of
from secateurs.pruning import set_aside
from secateurs.repair.repaired_values import put_repaired_values
from secateurs.training import hold


@pytest.fixture(autouse=True)
def _threads_take_turns_often() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def in_a_block(model: nn.Module, ratio: float) -> None:
    with sc.pruned(model, ratio):
        model(torch.zeros(1, 32))


def in_a_gradient_block(model: nn.Module, ratio: float) -> None:
    with sc.gradient_pruned(model, ratio):
        model(torch.zeros(1, 32))


def pruned_and_restored(model: nn.Module, ratio: float) -> None:
    sc.restore(sc.global_prune(model, ratio))


@pytest.mark.parametrize("work", [in_a_block, in_a_gradient_block, pruned_and_restored])
def test_no_original_value_is_lost(work: Callable[[nn.Module, float], None]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(6)))
    dense = [p.detach().clone() for p in model.parameters()]
    errors: list[Exception] = []

    def often(ratio: float) -> None:
        try:
            for _ in range(15):
                work(model, ratio)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=often, args=(ratio,)) for ratio in (0.2, 0.4, 0.6, 0.8)]
    with warnings.catch_warnings(action="ignore"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sc.restore(model)
    assert errors == []
    assert all(torch.equal(p, before) for p, before in zip(model.parameters(), dense, strict=True))


def set_aside_for_a_moment(model: nn.Module) -> None:
    with set_aside(model):
        pass


@pytest.mark.parametrize(
    "work",
    [
        lambda model: sc.select(model, 0.25),
        lambda model: sc.global_prune(model, 0.25),
        lambda model: sc.apply_masks(model, sc.Masks({})),
        sc.restore,
        sc.make_permanent,
        set_aside_for_a_moment,
        sc.to_torch_prune,
        lambda model: sc.repair(model, torch.rand(9, 4), ["reconstruct"]),
        lambda model: put_repaired_values(model, {"weight": torch.zeros(4, 4)}),
    ],
)
def test_a_pruning_in_another_thread_is_waited_for(work: Callable[[nn.Module], object]) -> None:
    model = sc.global_prune(nn.Linear(4, 4), 0.5)
    after, original = model.weight.detach().clone(), original_of(model, "weight")
    thread = threading.Thread(target=work, args=(model,))
    with changing(model):
        model.weight.data[0] = 7.0  # as if the other pruning had written some of the weights
        thread.start()
        thread.join(0.1)
        assert original_of(model, "weight") is original
        assert original is not None and not original.was_trained
        model.weight.data.copy_(after)
    thread.join()


def test_weights_that_are_loaded_while_masks_are_held_wait_for_another_thread() -> None:
    model = sc.global_prune(nn.Linear(4, 4), 0.5)
    loaded = {"weight": torch.ones(4, 4), "bias": torch.ones(4)}
    with hold(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        thread = threading.Thread(target=model.load_state_dict, args=(loaded,))
        with changing(model):
            thread.start()
            thread.join(0.1)
            assert torch.equal(model.weight, loaded["weight"])  # not pruned yet
        thread.join()
    assert sc.sparsity(model).ratio == 0.5


def test_a_surrogate_has_the_lock_of_its_network() -> None:
    surrogate = sc.Diversified(nn.Linear(4, 4), 0.5, 0.5)
    thread = threading.Thread(target=sc.global_prune, args=(surrogate.network, 0.5))
    with changing(surrogate):
        thread.start()
        thread.join(0.1)
        assert original_of(surrogate.network, "weight") is None
    thread.join()
    assert original_of(surrogate.network, "weight") is not None
