"""The commands that read files of weights or of results, and load no network: what each takes.

Nothing here imports torch, as in `secateurs.cli.commands`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token, convert

from secateurs.cli.option_types import with_help
from secateurs.cli.prune_options import FilePruning, Writing
from secateurs.errors import InvalidArgumentError


def prune(
    source: Annotated[
        Path,
        Parameter(
            name="IN",
            help="A .safetensors, .pt or .bin file, or a folder as Hugging Face writes it.",
        ),
    ],
    /,
    *,
    pruning: FilePruning = FilePruning(),
    writing: Writing = Writing(),
) -> Callable[[], None]:
    """Prune the weights in a file or folder, however large, in two passes over it."""
    asked = (pruning.p_prune, pruning.ratios_from)
    if writing.decompress and (asked != (None, None) or writing.compress or writing.dry_run):
        raise InvalidArgumentError("--decompress goes with IN and --output alone")
    if asked == (None, None) and ":" not in pruning.scope and not writing.decompress:
        raise InvalidArgumentError("--p-prune is missing: write --p-prune 0.5 for half")
    if None not in asked:
        raise InvalidArgumentError("give --p-prune or --ratios-from, not both")
    from secateurs.cli.prune_command import decompress, plan_only, prune_file

    if writing.dry_run:
        return partial(plan_only, source, pruning)
    if writing.decompress:
        return partial(decompress, source, writing.output)
    return partial(prune_file, source, writing.output, pruning, compress=writing.compress)


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
    """Print the table of one or more runs, draw them, or write a page.

    With --output PAGE.html, all of them become one page that opens in a browser.

    Args:
        folders: Output folders of runs of one command: of sweeps, sensitivity runs, budgets,
            transfers, retrainings, repairs or of speed; a page takes all of them together. Or
            their results.jsonl or results.csv.
        output: PAGE.html: one page with charts, tables, configurations and commands, in place of
            the printed table. Anything else is where to write the plot: PATH.png and PATH.svg; of
            transfers two, PATH-heatmap and PATH-curves; of several retrainings, repairs, budgets or
            sensitivity runs one each, PATH-FOLDER.
        x: Horizontal axis of sweeps: achieved (of weights) or p_prune (of units).
        title: Title of the plot or of the page.
        markdown: Print the table in markdown.
    """
    from secateurs.cli.report_command import run_report

    return partial(run_report, folders, output, x, title, markdown=markdown)


@with_help
def compare(
    folders: list[Path],
    /,
    *,
    confidence: float = 0.95,
    json: bool = False,
) -> Callable[[], None]:
    """Compare the accuracies of sweeps with those of the first one, with intervals.

    Args:
        folders: Output folders of two or more sweeps; of one, its networks are compared with the
            dense one.
        confidence: Of the intervals.
        json: Print JSON, one object a line.
    """
    from secateurs.cli.report_command import run_compare

    return partial(run_compare, folders, confidence, as_json=json)
