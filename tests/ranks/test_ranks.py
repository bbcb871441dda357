"""Pruning over ranks equals pruning in one process: real processes, gloo, 2 and 4 ranks."""

from pathlib import Path

import checks
import pytest
from processes import failures_of, run_on_ranks

ALIKE = [
    checks.every_way_gives_the_masks_of_one_process,
    checks.ties_go_to_the_earlier_unit_of_the_whole,
    checks.all_equal_weights_are_pruned_in_order,
]


@pytest.fixture(scope="module", params=[2, 4])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """All checks at once, for it takes seconds to start processes."""
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(ALIKE, request.param, folder)
    return request.param, folder


@pytest.mark.parametrize("check", ALIKE, ids=lambda check: check.__name__)
def test_alike(ran: tuple[int, Path], check) -> None:
    ranks, folder = ran
    failures = failures_of(check, ranks, folder)
    assert not failures, failures
