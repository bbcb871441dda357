"""What every rank checks: a network divided over ranks is pruned as if it were whole."""

from pathlib import Path

from placed import assert_equal, stepped, ways
from torch import nn

import secateurs as sc

GRANULARITIES = (("weight", "global"), ("kernel", "global"), ("filter", "layer"))


def every_way_gives_the_masks_of_one_process(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks).items():
        model, reference = divided(), single()
        for granularity, scope in GRANULARITIES:
            options = {"granularity": granularity, "scope": scope, "seed": 3}
            sc.global_prune(model, 0.45, 0.7, **options)
            sc.global_prune(reference, 0.45, 0.7, **options)
            assert_equal(model, reference, f"{name} {granularity} {scope}")
        assert sc.sparsity(model) == sc.sparsity(reference), name
        assert_equal(sc.restore(model), single(), f"{name} restored")


def ties_go_to_the_earlier_unit_of_the_whole(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks).items():
        model, reference = stepped(divided()), stepped(single())
        for p_prune in (0.0, 0.2, 0.5, 0.9, 1.0):
            sc.global_prune(model, p_prune)
            sc.global_prune(reference, p_prune)
            assert_equal(model, reference, f"{name} {p_prune}")


def all_equal_weights_are_pruned_in_order(rank: int, ranks: int, folder: Path) -> None:
    for name, (divided, single) in ways(ranks).items():
        model, reference = divided(), single()
        for parameter in (*model.parameters(), *reference.parameters()):
            nn.init.constant_(parameter, 0.5)
        for p_prune in (0.1, 0.33, 0.75):
            sc.global_prune(model, p_prune, 0.5, seed=1)
            sc.global_prune(reference, p_prune, 0.5, seed=1)
            assert_equal(model, reference, f"{name} {p_prune}")
