"""A pass through the layers that goes on from the last layer that it finished."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

import secateurs as sc
from helpers import assert_same, snapshot
from repair.repair_cases import images, pruned_network
from secateurs import InvalidArgumentError
from secateurs.errors import FailureError
from secateurs.repair import StepReport

STEPS = ["batchnorm", "sparsegpt", "reconstruct"]


class StoppedError(Exception):
    pass


def repaired(model: nn.Module, **options: Any) -> tuple[Any, StepReport]:
    (done,) = sc.repair(model, images(), STEPS, batch_size=8, memory=70_000, **options)
    return snapshot(model), done


def interrupted(model: nn.Module, state: Path) -> None:
    """A repair that fails at the last layer, behind those that are finished."""
    calls: list[int] = []

    def stop(*_: object) -> None:
        calls.append(1)
        if len(calls) > 14:
            raise StoppedError

    hook = model[7].register_forward_pre_hook(stop)
    before = snapshot(model)
    with pytest.raises(StoppedError):
        repaired(model, state=state)
    hook.remove()
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("spoiled", [0, 1, 3000])
@pytest.mark.parametrize("by", ["a kill", "a power cut"])
def test_an_interrupted_pass_goes_on_to_the_same_end(spoiled: int, by: str, tmp_path: Path) -> None:
    whole, report = repaired(pruned_network(0.6))
    state, model = tmp_path / "state.pt", pruned_network(0.6)
    interrupted(model, state)
    written = state.read_bytes()
    assert len(written) > 3000
    rest = bytes(spoiled if by == "a power cut" else 0)
    state.write_bytes(written[: len(written) - spoiled] + rest)
    for _ in range(2):  # the second time it is finished
        found, done = repaired(model, state=state)
        assert_same(found, whole)
        assert (done.layers, done.loss) == (report.layers, report.loss)
        sc.restore(model)
        sc.global_prune(model, 0.6)
    if not spoiled:  # what was finished was not done again
        assert state.read_bytes()[: len(written)] == written


def test_files_of_other_passes_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    state, model = tmp_path / "state.pt", pruned_network(0.6)
    interrupted(model, state)
    before = snapshot(model)
    with pytest.raises(InvalidArgumentError, match=r"^.*state\.pt belongs to another repair .*"):
        repaired(model, state=state, damping=0.2)
    state.write_bytes(b"something else")
    with pytest.raises(FailureError, match=r"state\.pt is damaged, or not the state of a repair"):
        repaired(model, state=state)
    assert_same(snapshot(model), before)
