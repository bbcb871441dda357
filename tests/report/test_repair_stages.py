"""What the table of a repair says about it."""

import pytest

from repair_rows import make_repair_row
from secateurs.report.repair_stages import describe_repair


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"p_prune": 0.5}, "50% of the weights ranked globally by lamp"),
        ({"p_prune": 0.5, "allocation": "global"}, "50% of the weights ranked globally by lamp"),
        (
            {"p_prune": 0.5, "allocation": "erk"},
            "50% of the weights ranked per layer by lamp, allocation erk",
        ),
        (
            {"p_prune": None, "allocation": "file 0123abcd"},
            "weights ranked per layer, each with a ratio of its own (ratios 0123abcd), by lamp",
        ),
    ],
)
def test_weights_of_an_allocation_are_ranked_per_layer(
    changes: dict[str, object], said: str
) -> None:
    row = make_repair_row(
        1, granularity="weight", scope="global", score="lamp", prunable=10, kept=5, **changes
    )
    assert describe_repair(row).startswith(f"5 of 10 weights pruned ({said}); ")
