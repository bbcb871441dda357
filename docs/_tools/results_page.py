"""Make docs/measured.md from the rows in results/; a test compares it with what this makes.

python docs/_tools/results_page.py docs/measured.md
"""

import sys
from pathlib import Path

from secateurs.report import markdown_table
from secateurs.report.retrain_outcomes import outcome_table
from secateurs.report.text_table import TextTable
from secateurs.results import RepairRow, RetrainRow, TransferRow, read_rows

RESULTS = Path(__file__).resolve().parents[2] / "results"
TRANSFER = RESULTS / "transfer"
START = """# Results

All numbers on this page are made from the rows in `results/` of the repository, by
`docs/_tools/results_page.py`. Each row carries what reproduces it; the README files there have the
commands and say on what machine they ran. The column "rows" names the file of a run.
"""


def page() -> str:
    """The text of the page."""
    found = RESULTS / "imagenet_compatible"
    plain = sorted(path for path in found.glob("*.csv") if "_squash" not in path.stem)
    squashed = sorted(found.glob("*_squash.csv"))
    parts = [
        START,
        "## One-shot pruning without retraining\n",
        "Images of the ImageNet-Compatible set, preprocessed as each network asks for it:\n",
        markdown_table([row for path in plain for row in read_rows(path)]),
        "The whole image squashed to 224 x 224 instead, and convolutions alone:\n",
        markdown_table([row for path in squashed for row in read_rows(path)]),
        "## Pruned and retrained\n",
        retrainings(sorted((RESULTS / "retrain").glob("*.csv"))),
        "The error of the dense network is that of the weights a run begins with; a row of 1.0x is "
        "that network trained on for as long as the pruned ones that begin with it, the fair "
        "baseline.\n",
        "## Repaired without labels\n",
        repairs(sorted((RESULTS / "repair").glob("*.csv"))),
        "## Adversarial transfer\n",
        "Surrogates that are pruned afresh at each pass, beside the plain ones.\n",
    ]
    for name in ("cifar10", "imagenet_compatible"):
        parts += [
            f"### {name}\n",
            outcome(markdown_table(read_rows(TRANSFER / f"{name}.csv", TransferRow))),
        ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def retrainings(files: list[Path]) -> str:
    """A row for each retraining, with the file that says how it was trained."""
    runs = [read_rows(path, RetrainRow) for path in files]
    table, _ = outcome_table(runs)
    counts = [str(len({row.seed for row in rows})) for rows in runs]
    rows = [
        [path.stem, row[0], count, *row[1:]]
        for path, row, count in zip(files, table.rows, counts, strict=True)
    ]
    named = TextTable(["rows", table.heads[0], "seeds", *table.heads[1:]], rows, names=2)
    return named.markdown(
        "Error in percent on 10,000 test images, mean and deviation over the seeds."
    )


def repairs(files: list[Path]) -> str:
    """A row for each repair: the network dense, pruned, and repaired."""
    lines = [
        "| rows | pruned | unlabelled images | steps | pruned alone | repaired | dense |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: |",
    ]
    for path in files:
        dense, pruned, *_, repaired = read_rows(path, RepairRow)
        cells = (
            path.stem,
            f"{100 * repaired.achieved:.0f}%",
            f"{repaired.calibration_count:,}",
            repaired.steps.replace(";", ", "),
            *(f"{row.top1:.1f}" for row in (pruned, repaired, dense)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Top-1 accuracy in percent; labels score and decide nothing."])


def outcome(tables: str) -> str:
    """Of the tables of a transfer, targeted success on the images that chose no setting."""
    _, title, rest = tables.partition("**Targeted success in percent (part kept for the outcome)**")
    table = rest.partition("\n**")[0]
    last = tables.rstrip("\n").rpartition("\n\n")[2]
    return f"{title}{table.rstrip()}\n" + (f"\n{last}\n" if not last.startswith("|") else "")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
