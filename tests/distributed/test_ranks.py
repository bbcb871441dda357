"""Pruning over ranks equals pruning in one process: real processes, gloo, 2 and 4 ranks."""

from pathlib import Path

import checks
import pytest
import training_checks
from processes import Check, Stage, failures_of, run_on_ranks

# Each process has its share of the machine, which may be busy.
pytestmark = pytest.mark.timeout(900)

CHECKS = [
    checks.every_way_gives_the_masks_of_one_process,
    checks.experts_and_recurrent_layers_are_divided_in_any_way,
    checks.ties_go_to_the_earlier_unit_of_the_whole,
    checks.all_equal_weights_are_pruned_in_order,
    checks.more_weights_than_the_sample_in_every_format,
    checks.every_score_gives_the_masks_of_one_process,
    checks.levels_and_redraws_are_those_of_one_process,
    checks.masks_are_saved_whole_and_loaded_in_parts,
    checks.a_pruned_model_trains_on,
    checks.what_one_rank_learned_all_ranks_prune,
    checks.an_interrupt_while_shards_are_written_loses_no_training,
    checks.gradients_are_pruned_under_fsdp,
    checks.gradients_are_pruned_under_tensor_parallelism,
    checks.what_needs_a_whole_model_says_so,
    checks.data_parallel_ranks_hold_the_same_masks,
    checks.what_differs_between_ranks_is_named,
    checks.what_only_lies_elsewhere_on_each_rank_is_the_same,
    checks.a_time_that_is_no_number_is_named,
    checks.an_error_on_one_rank_is_an_error_on_all,
    checks.a_score_that_fails_on_one_rank_says_so_on_all,
    training_checks.a_held_training_is_that_of_one_process,
    training_checks.lbfgs_is_held_as_in_one_process,
    training_checks.every_pruner_does_what_it_does_in_one_process,
    training_checks.a_retraining_is_that_of_one_process,
    training_checks.a_checkpoint_goes_on_on_any_number_of_ranks,
]


MISSING = [checks.a_rank_that_does_not_come_is_missed, checks.a_rank_that_dies_is_missed]
STAGES = [
    Stage(4, CHECKS),
    Stage(2, CHECKS),
    Stage(2, MISSING[:1], timeout=2),
    Stage(2, MISSING[1:]),  # ends one of them
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    run_on_ranks(STAGES, folder)
    return folder


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_on_all_ranks(ran: Path, check: Check, ranks: int) -> None:
    failures = failures_of(check, ranks, ran)
    assert not failures, failures


@pytest.mark.parametrize("check", MISSING, ids=lambda check: check.__name__)
def test_a_missing_rank_is_an_error(ran: Path, check: Check) -> None:
    failures = failures_of(check, 2, ran)
    assert not failures, failures
