"""``secateurs compare``: differences between runs, with intervals."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from secateurs.cli.standard_output import Stdout
from secateurs.report.run_comparison import compare_runs, comparison_table


def run_compare(folders: Sequence[Path], confidence: float, *, as_json: bool) -> None:
    """Print how the accuracies of runs differ from those of the first one.

    Args:
        folders: of sweeps.
        confidence: of the intervals.
        as_json: whether to print JSON instead of a table.
    """
    found = compare_runs(folders, confidence)
    with Stdout("the comparison") as stdout:
        if as_json:
            stdout.write("".join(json.dumps(asdict(one)) + "\n" for one in found))
        else:
            stdout.table(lambda console: comparison_table(found, console, confidence))
