"""Threads that prune one model at the same time."""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

import secateurs as sc


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
