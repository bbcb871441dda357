"""How the accuracies of runs differ: paired where both saw the same images."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateurs._io.text import printable
from secateurs.errors import InvalidArgumentError
from secateurs.report.number_text import interval_text, p_text, percent
from secateurs.report.text_table import TextTable, show_tables
from secateurs.results import Row, read_rows
from secateurs.results.compare import paired_test, unpaired_interval
from secateurs.results.config import read_config
from secateurs.results.folder import CONFIG
from secateurs.results.image_outcomes import outcome_key, read_outcomes

if TYPE_CHECKING:
    from rich.console import Console

_SETTING = ("prune_type", "granularity", "scope", "score", "repair", "p_bern")


@dataclass(frozen=True)
class RunDifference:
    """The accuracy of one row minus that of the row it is compared with.

    Attributes:
        run: Folder of the row.
        base: Folder of the row that it is compared with.
        model: Network of the row.
        setting: How it was pruned, in words.
        p_prune: Ratio of units that are candidates.
        top1: Its accuracy, percent.
        base_top1: Accuracy of the other, percent.
        difference: top1 - base_top1, points.
        low: Lower end of the interval of the difference, points.
        high: Upper end of it, points.
        p: Two-sided p value, for paired rows: McNemar's exact test for one draw; else None.
        paired: Whether both saw the same images, and which were right is known.
        lost: Images that were right and are wrong now, summed over draws; None if not paired.
        won: Images that were wrong and are right now, summed over draws; None if not paired.
        count: Images of the row.
    """

    run: str
    base: str
    model: str
    setting: str
    p_prune: float
    top1: float
    base_top1: float
    difference: float
    low: float
    high: float
    p: float | None
    paired: bool
    lost: int | None
    won: int | None
    count: int


@dataclass(frozen=True)
class _ComparedRun:
    """A folder, its rows, and which images each got right."""

    path: str
    rows: list[Row]
    hits: dict[str, list[str]]
    samples: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_ComparedRun":
        rows = [row.printable() for row in read_rows(path)]
        if not rows:
            raise InvalidArgumentError(f"no finished rows in {path}: let the run finish first")
        folder = path if path.is_dir() else path.parent
        samples = (read_config(folder / CONFIG) or {}).get("image_samples")
        return cls(
            str(path), rows, read_outcomes(folder), samples if isinstance(samples, dict) else {}
        )

    def only(self, name: str) -> bool:
        return len({getattr(row, name) for row in self.rows}) == 1


def compare_runs(
    paths: Sequence[str | os.PathLike[str]], confidence: float = 0.95
) -> list[RunDifference]:
    """Compare the rows of sweeps with those of the first; of one sweep, with its dense row.

    Rows are compared that have the same ratio and setting; a column of the setting that has one
    value in each of the two runs may differ, since it may be what is compared. Two rows are paired
    where both runs have read the same images in order: then the interval is that of paired
    proportions (`secateurs.results.compare.paired_test`), and else Newcombe's for independent ones,
    which is wider.

    Args:
        paths: Output folders.
        confidence: Of each interval; they are not adjusted for their number.

    Raises:
        InvalidArgumentError: There are no rows, or none that can be compared.
        FailureError: A file is broken.
    """
    runs = [_ComparedRun.read(Path(path)) for path in paths]
    if len(runs) == 1:
        dense = next((row for row in runs[0].rows if row.p_prune == 0), None)
        if dense is None:
            raise InvalidArgumentError(
                f"{runs[0].path} has no dense row to compare with: give another run too, or sweep "
                "with the ratio 0"
            )
        rest = [row for row in runs[0].rows if row.p_prune]
        return [_difference(runs[0], row, runs[0], dense, confidence) for row in rest]
    found = [
        _difference(run, row, runs[0], base, confidence)
        for run in runs[1:]
        for row, base in _matches(run, runs[0])
    ]
    if not found:
        raise InvalidArgumentError(
            f"no row of {runs[0].path} has a ratio and a setting of another run: sweep both at "
            "the same ratios"
        )
    return found


def comparison_table(
    found: Sequence[RunDifference], console: "Console | None" = None, confidence: float = 0.95
) -> None:
    """Print a table for each run, a row for each difference.

    Args:
        found: From `compare_runs`.
        console: Where to print; a fresh rich console by default.
        confidence: Of the intervals, for the head of their column.
    """
    runs = dict.fromkeys(one.run for one in found)
    tables = [_table([one for one in found if one.run == run], confidence) for run in runs]
    notes = ["differences of top-1 in points"]
    if any(one.paired for one in found):
        notes.append(
            "paired over the same images: lost/won in all draws, p by McNemar's exact test"
        )
    if not all(one.paired for one in found):
        notes.append("without a p: not the same images, or an older run without outcomes")
    show_tables(console, tables, "; ".join(notes))


def _table(rows: Sequence[RunDifference], confidence: float) -> TextTable:
    first = rows[0]
    against = "the dense network" if first.run == first.base else first.base
    words = [one.setting.split(", ") for one in rows]
    shared = set(words[0]).intersection(*words)
    settings = [", ".join(word for word in each if word not in shared) for each in words]
    several = any(settings)
    heads = ["setting"] * several + ["asked", "there", "here", "difference"]
    lines = [
        [
            *([setting] * several),
            *(percent(round(one.p_prune, 4)), f"{one.base_top1:.2f}", f"{one.top1:.2f}"),
            *(f"{one.difference:+.2f}", interval_text(one.low, one.high, "{:+.2f}")),
            f"{one.lost}/{one.won}" if one.paired else "",
            "" if one.p is None else p_text(one.p),
        ]
        for one, setting in zip(rows, settings, strict=True)
    ]
    heads += [f"{100 * confidence:g}% interval", "lost/won", "p"]
    return TextTable(heads, lines, printable(f"{first.run} against {against}"), names=int(several))


def _matches(run: _ComparedRun, base: _ComparedRun) -> list[tuple[Row, Row]]:
    """The rows of two runs that may be compared."""
    names = [name for name in _SETTING if not (run.only(name) and base.only(name))]

    def key(row: Row) -> tuple[Any, ...]:
        # The ratio of a network with a ratio for each layer is not round.
        return (round(row.p_prune, 3), *(getattr(row, name) for name in names))

    there = {key(row): row for row in base.rows}
    return [(row, there[key(row)]) for row in run.rows if key(row) in there]


def _difference(
    run: _ComparedRun, row: Row, base: _ComparedRun, other: Row, confidence: float
) -> RunDifference:
    ours, theirs = (
        each.hits.get(outcome_key(one), []) for each, one in ((run, row), (base, other))
    )
    if len(theirs) == 1 < len(ours) and other.p_prune == 0:
        theirs = theirs * len(ours)  # the dense network has no draws
    paired = bool(ours) and len(ours) == len(theirs) and _same_images(run, row, base, other)
    lost = won = p = None
    if paired:
        tested = paired_test(ours, theirs, confidence)
        p, low, high = tested.p, tested.low, tested.high
        pairs = list(zip("".join(ours), "".join(theirs), strict=True))
        lost, won = pairs.count(("0", "1")), pairs.count(("1", "0"))
    else:
        low, high = unpaired_interval(
            (row.top1 / 100, row.count), (other.top1 / 100, other.count), confidence
        )
    return RunDifference(
        run=run.path,
        base=base.path,
        model=row.model,
        setting=", ".join(_words(row)),
        p_prune=row.p_prune,
        top1=row.top1,
        base_top1=other.top1,
        difference=row.top1 - other.top1,
        low=low,
        high=high,
        p=p,
        paired=paired,
        lost=lost,
        won=won,
        count=row.count,
    )


def _words(row: Row) -> list[str]:
    """How a network was pruned."""
    repair = row.repair.replace(";", " + ") or "plain"
    pruning = f"{row.prune_type} pruning"
    return [pruning, row.granularity, row.scope, row.score, repair, f"p_bern {row.p_bern:g}"]


def _same_images(run: _ComparedRun, row: Row, base: _ComparedRun, other: Row) -> bool:
    """Whether two runs read the same images: by checksums of some of them and of the labels."""
    if (row.count, row.split) != (other.count, other.split):
        return False
    if run is base:
        return True
    both = {
        name
        for name in run.samples.keys() & base.samples.keys()
        if run.samples[name] is not None and base.samples[name] is not None
    }
    if row.preprocess != other.preprocess or row.img_size != other.img_size:
        both &= {"labels"}  # the pixels differ, though the images may be the same
        if row.data != other.data:
            return False
    return bool(both) and all(run.samples[name] == base.samples[name] for name in both)
