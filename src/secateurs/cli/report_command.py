"""``secateurs report``: the tables and plots of sweeps and transfers that lie on disk."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, convert

from secateurs.cli.option_types import with_help


def _underscored(kind: Any, tokens: Sequence[Token]) -> Any:
    return convert(kind, [token.evolve(value=token.value.replace("-", "_")) for token in tokens])


@with_help
def report(
    folders: list[Path],
    /,
    *,
    output: Annotated[Path | None, Parameter(alias="-o")] = None,
    x: Annotated[Literal["achieved", "p_prune"], Parameter(converter=_underscored)] = "achieved",
    title: str | None = None,
    markdown: bool = False,
) -> Callable[[], None]:
    """Print the table of one or more sweeps or transfers, and draw them in one plot.

    Args:
        folders: Output folders of sweeps, or of transfers, or their results.jsonl or results.csv.
        output: Where to write the plot: PATH.png and PATH.svg; of transfers two, PATH-heatmap and
            PATH-curves.
        x: Horizontal axis of sweeps: achieved (of weights) or p_prune (of units).
        title: Title of the plot.
        markdown: Print the table in markdown.
    """
    from secateurs.cli.report_run import run_report

    return partial(run_report, folders, output, x, title, markdown=markdown)
