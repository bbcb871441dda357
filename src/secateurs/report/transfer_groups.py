"""Rows of a transfer benchmark by variant and surrogates, with means and tests over them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from secateurs.results import TransferRow
from secateurs.results.compare import Comparison, Estimate, holm, paired_test, success_interval

Goal = Literal["targeted", "untargeted"]
Pair = tuple[str, str]
"""Surrogates and a target."""

PLAIN, NOISE = "plain", "noise"
HOLDOUT, WHITE = "holdout", "whitebox"


@dataclass(frozen=True)
class VariantRows:
    """One variant on one group of surrogates, or on all groups together.

    Attributes:
        surrogates: The surrogates as the rows name them, "" for noise, None for all groups.
        variant: The variant as the rows name it.
        label: The variant, with the settings in which it differs from lines of the same variant.
        passes: Gradient passes in a step.
        rows: The rows by surrogates, target, seed and step.
    """

    surrogates: str | None
    variant: str
    label: str
    passes: int
    rows: dict[tuple[str, str, int, int], TransferRow]

    @cached_property
    def pairs(self) -> dict[Pair, str]:
        """The role of each pair of surrogates and target that was measured."""
        return {(names, target): row.role for (names, target, _, _), row in self.rows.items()}

    def hits(
        self, outcome: Goal, pairs: Iterable[Pair], step: int, seeds: Iterable[int] | None = None
    ) -> list[str]:
        """The outcomes of each pair and each seed that all pairs have, one text for each."""
        pairs = sorted(pairs)
        shared = self.seeds(pairs, step) if seeds is None else sorted(seeds)
        return [
            getattr(self.rows[names, target, seed, step], f"{outcome}_hits")
            for names, target in pairs
            for seed in shared
        ]

    def seeds(self, pairs: Iterable[Pair], step: int) -> list[int]:
        """The seeds with which all of the pairs were measured at a step."""
        found = [
            {seed for *pair, seed, at in self.rows if (*pair,) == wanted and at == step}
            for wanted in pairs
        ]
        return sorted(set.intersection(*found)) if found else []


@dataclass(frozen=True)
class BenchmarkRows:
    """Rows of one protocol on the same images.

    Attributes:
        rows: The rows.
        lines: One for each variant of each group of surrogates, and after them one for each
            variant over all groups where there are several; noise comes last.
        targets: The targets, in the order of their first rows.
        short: Short names of all networks.
    """

    rows: tuple[TransferRow, ...]
    lines: tuple[VariantRows, ...]
    targets: tuple[str, ...]
    short: dict[str, str]

    @cached_property
    def steps(self) -> list[int]:
        """The steps that were measured."""
        return sorted({row.step for row in self.rows})

    @cached_property
    def groups(self) -> list[str]:
        """The groups of surrogates."""
        return list(dict.fromkeys(line.surrogates for line in self.lines if line.surrogates))

    @cached_property
    def holdouts(self) -> set[Pair]:
        """All pairs of surrogates and a target that the attack did not use.

        If there are none, all pairs: then success on the surrogates themselves is shown.
        """
        every = {(row.surrogates, row.target) for row in self.rows}
        named = {(row.surrogates, row.target) for row in self.rows if row.role == HOLDOUT}
        attacked = {pair for pair in named if pair[0]}
        return attacked or {pair for pair in every if pair[0]} or every

    @property
    def measured(self) -> str:
        """The name of the pairs of `holdouts`."""
        white = all(row.role == WHITE for row in self.rows if row.variant != NOISE)
        return "white-box" if white else "hold-outs"

    @property
    def outcomes(self) -> tuple[Goal, ...]:
        """The outcomes to show: an untargeted attack has no targeted success."""
        return ("targeted", "untargeted") if self.rows[0].targeted_attack else ("untargeted",)

    def holdouts_of(self, line: VariantRows) -> set[Pair]:
        """The pairs over which the success of a line is averaged."""
        if line.surrogates is None:
            return self.holdouts
        if line.surrogates:
            return {pair for pair in self.holdouts if pair[0] == line.surrogates}
        return {("", target) for _, target in self.holdouts}

    def surrogates_text(self, surrogates: str | None) -> str:
        """The surrogates' short names: "lite0 + lite1", or "all but lite2" if shorter."""
        if surrogates is None:
            return "all surrogates"
        names = surrogates.split(";") if surrogates else []
        others = [target for target in self.targets if target not in names]
        if len(names) > 2 and len(others) == 1 and len(names) == len(self.targets) - 1:
            return f"all but {self.short[others[0]]}"
        return " + ".join(self.short[name] for name in names)

    def cell(
        self, line: VariantRows | None, target: str, outcome: Goal
    ) -> tuple[Estimate, str] | None:
        """Success on one target at the last step, and the target's role; None without rows."""
        if line is None:
            return None
        pairs = [pair for pair in line.pairs if pair[1] == target]
        if line.surrogates is None:
            pairs = [pair for pair in pairs if pair in self.holdouts]
            if set(pairs) != {pair for pair in self.holdouts if pair[1] == target}:
                return None
        hits = line.hits(outcome, pairs, self.steps[-1])
        return (success_interval(hits), line.pairs[pairs[0]]) if hits else None

    def more_than_plain(self, line: VariantRows | None, target: str, outcome: Goal) -> float | None:
        """Success on one target minus that of the baseline, points; None without both."""
        own = self.cell(line, target, outcome)
        plain = self.cell(self.baseline(line) if line else None, target, outcome)
        return own[0].value - plain[0].value if own and plain else None

    def mean(self, line: VariantRows, outcome: Goal) -> Estimate | None:
        """Mean success over the hold-outs; None unless all of them were measured."""
        hits = line.hits(outcome, self.holdouts_of(line), self.steps[-1])
        return success_interval(hits) if hits else None

    def highest(self, lines: Iterable[VariantRows], outcome: Goal) -> float:
        """The end of a colour scale: the highest success on a hold-out, rounded up to tens."""
        cells = [self.cell(line, target, outcome) for line in lines for target in self.targets]
        values = [cell[0].value for cell in cells if cell and cell[1] != WHITE]
        return min(100.0, 10 * math.ceil(max([*values, 1.0]) / 10))

    def baseline(self, line: VariantRows) -> VariantRows | None:
        """The plain line of the same surrogates, preferably with the same number of passes."""
        if line.variant in (PLAIN, NOISE):
            return None
        plain = [
            other
            for other in self.lines
            if other.variant == PLAIN and other.surrogates == line.surrogates
        ]
        same = [other for other in plain if other.passes == line.passes]
        return next(iter([*same, *plain]), None)

    def compare(self, line: VariantRows, outcome: Goal) -> Comparison | None:
        """Compare a line with its baseline over the hold-outs, with the seeds of both."""
        plain, pairs, step = self.baseline(line), self.holdouts_of(line), self.steps[-1]
        if plain is None:
            return None
        seeds = sorted(set(line.seeds(pairs, step)) & set(plain.seeds(pairs, step)))
        if not seeds:
            return None
        ours, theirs = (one.hits(outcome, pairs, step, seeds) for one in (line, plain))
        return paired_test(ours, theirs)

    def comparisons(self, outcome: Goal) -> dict[int, tuple[Comparison, float]]:
        """The comparison of each line by its index, with Holm's p among lines of its surrogates."""
        found = {i: self.compare(line, outcome) for i, line in enumerate(self.lines)}
        result: dict[int, tuple[Comparison, float]] = {}
        for group in dict.fromkeys(line.surrogates for line in self.lines):
            family = [
                (i, one)
                for i, one in found.items()
                if one is not None and self.lines[i].surrogates == group
            ]
            adjusted = holm([one.p for _, one in family])
            result |= {i: (one, p) for (i, one), p in zip(family, adjusted, strict=True)}
        return result
