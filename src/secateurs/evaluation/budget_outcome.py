"""The result of a budget: the network that was chosen, and a row for each that was tried."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from secateurs.evaluation.budget_search import Look
from secateurs.evaluation.paired_drop import upper_limit
from secateurs.results import BudgetRow, Rows


@dataclass(frozen=True)
class Budget:
    """The sparsest network with the claim that was asked for.

    Attributes:
        p_prune: the ratio of units that are pruned; 0.0 where no pruned network passed.
        achieved: the ratio of prunable weights that is zero.
        max_drop: the drop that is excluded, points.
        confidence: of the claim, all looks together.
        count: images.
        dense_top1: accuracy of the dense network, percent.
        top1: accuracy of this one, percent.
        drop: dense_top1 - top1, points.
        drop_high: the upper limit of the drop, points, at this confidence for all looks together.
        lost: images that the dense network gets right and this one wrong.
        won: images that it gets wrong and this one right.
        needed: about how many images would show that the least sparse network that failed drops by
            less than the margin, if others flip like those that were scored; None where its drop
            on these was not below the margin by a standard error.
        needed_for: the ratio of that network.
        looks: the ratios that were tried, in order.
        passes: forward passes over all images that it took, the dense one included.
        rows: each look with its limit and what reproduces it, in order.
    """

    p_prune: float
    achieved: float
    max_drop: float
    confidence: float
    count: int
    dense_top1: float
    top1: float
    drop: float
    drop_high: float
    lost: int
    won: int
    needed: int | None
    needed_for: float | None
    looks: tuple[Look, ...] = field(repr=False)
    passes: float
    rows: Rows[BudgetRow] = field(repr=False, compare=False)

    def plot(self, **options: Any) -> Any:
        """Draw the drop of each network that was tried: `secateurs.results.Rows.plot` of rows."""
        return self.rows.plot(**options)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each network that was tried."""
        return self.rows.to_pandas()

    def _repr_html_(self) -> str:
        return self.rows._repr_html_()


def outcome_of(
    looks: Sequence[Look],
    best: Look | None,
    dense: str,
    achieved: float,
    asked: Mapping[str, Any],
    level: float,
) -> Budget:
    """The result of a search.

    Args:
        looks: the ratios that were tried.
        best: the one that was chosen; None if none passed.
        dense: the outcomes of the dense network, a digit for each image.
        achieved: the ratio of zeros of the network that was chosen.
        asked: the columns that all rows share.
        level: the probability of a wrong claim in one look.
    """
    margin, count = asked["max_drop"] / 100, len(dense)
    shared = {name: value for name, value in asked.items() if name in BudgetRow.columns()}
    dense_top1 = 100 * dense.count("1") / count
    rows = Rows(
        BudgetRow(
            **shared,
            **asdict(look),
            images=count,
            dense_top1=dense_top1,
            drop=100 * (look.lost - look.won) / look.count,
            drop_high=100 * upper_limit(look.lost, look.won, look.count, margin, level),
            needed=None if look.passed else look.needed(margin, level),
            achieved=achieved if look is best else None,
        )
        for look in looks
    )
    claim: dict[str, Any] = {
        "p_prune": 0.0, "achieved": 0.0, "drop": 0.0, "drop_high": 0.0, "lost": 0, "won": 0,
    }  # fmt: skip
    if best is not None:
        chosen = rows[looks.index(best)]
        claim = {name: getattr(chosen, name) for name in claim}
    failed = min((row for row in rows if not row.passed), key=lambda r: r.p_prune, default=None)
    needed = failed.needed if failed else None
    return Budget(
        **claim,
        max_drop=asked["max_drop"],
        confidence=asked["confidence"],
        count=count,
        dense_top1=dense_top1,
        top1=dense_top1 - claim["drop"],
        needed=needed,
        needed_for=failed.p_prune if failed and needed is not None else None,
        looks=tuple(looks),
        passes=1 + sum(look.count for look in looks) / count,
        rows=rows,
    )
