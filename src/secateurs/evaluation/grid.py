"""What a sweep measures: every combination of settings, ratios and probabilities."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypedDict

from secateurs._validation import check_choice, check_count, check_ratio, check_seed
from secateurs.criteria import Criterion, Score
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.evaluation.evaluation_loop import DENSE
from secateurs.gradient_pruning.prunable_layers import gradient_barrier
from secateurs.parameters.coverage import Barrier, no_barrier
from secateurs.parameters.layer_choice import Layers, Patterns
from secateurs.pruning import PRUNE_TYPES
from secateurs.repair.repair_options import STEPS
from secateurs.selection.scopes import NOfM, ratio_in
from secateurs.selection.selection_options import SelectionOptions

P_PRUNE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True, repr=False)
class Setting(SelectionOptions):
    """How candidates are chosen, and in which passes the masks act.

    Args:
        prune_type: ``"global"`` or ``"gradient"``; the other arguments are those of
            `SelectionOptions`.
        repair: the steps of `secateurs.repair` that follow the pruning; none for ``()``.
        ratios: the name and the ratio of each parameter, in place of a scope.
    """

    prune_type: str = "global"
    repair: tuple[str, ...] = ()
    ratios: tuple[tuple[str, float], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("prune_type", self.prune_type, PRUNE_TYPES)

    @property
    def scope_name(self) -> str:
        """The scope in result rows; ratios of the parameters are named by a checksum."""
        if self.ratios is None:
            return self.scope
        return f"ratios {hashlib.sha256(repr(sorted(self.ratios)).encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Variant:
    """One network to evaluate: a setting, p_prune, p_bern, and the seed of its draw."""

    setting: Setting
    p_prune: float
    p_bern: float
    seed: int

    @property
    def is_dense(self) -> bool:
        """Whether this is the original network: the variants of gradient pruning are not."""
        nothing = self.p_prune == 0 or self.p_bern == 0
        return nothing and self.setting.prune_type == "global"

    @property
    def key(self) -> str:
        """The name of this network in a progress file; all dense variants are one network."""
        if self.is_dense:
            return DENSE
        s = self.setting
        parts = (s.prune_type, s.granularity, s.scope_name, s.score_name)
        repaired = ["repair " + ";".join(s.repair)] if s.repair else []
        return " ".join((*parts, f"{self.p_prune!r} {self.p_bern!r} {self.seed}", *repaired))


@dataclass(frozen=True)
class Cell:
    """One row of the result: a setting, p_prune and p_bern, averaged over the draws."""

    setting: Setting
    p_prune: float
    p_bern: float
    variants: tuple[Variant, ...]


class GridKeywords(TypedDict, total=False):
    """The arguments of `Grid`, for functions that take them as keyword arguments."""

    p_prune: float | Sequence[float]
    p_bern: float | Sequence[float]
    prune_type: str | Sequence[str]
    granularity: str | Sequence[str]
    scope: str | Sequence[str]
    score: Score | Sequence[Score]
    repair: str | Sequence[str]
    layers: Layers | None
    include: Patterns | None
    exclude: Patterns | None
    ratios: Mapping[str, float] | None
    draws: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of settings that a sweep measures; each option is a value or several.

    Args:
        p_prune: ratios of units that are candidates, default 0 to 0.9 in tenths. A scope N:M is
            measured at its own ratio, and at 0 if that is among them.
        p_bern: probabilities of each candidate, default 1.
        prune_type: ``"global"``, ``"gradient"``, or both.
        granularity: one or several; see `secateurs.SelectionOptions`.
        scope: one or several; see `secateurs.SelectionOptions`.
        score: one or several; see `secateurs.SelectionOptions`.
        repair: steps of `secateurs.repair`. Each pruned network is measured twice then: as it is,
            and after these steps.
        layers: for all combinations; see `secateurs.SelectionOptions`.
        include: for all combinations; see `secateurs.SelectionOptions`.
        exclude: for all combinations; see `secateurs.SelectionOptions`.
        ratios: the ratio of each parameter by its name, in place of ``p_prune`` and ``scope``: one
            network is measured beside the dense one. See `secateurs.repair.read_ratios`.
        draws: number of draws where p_bern is between 0 and 1 or the score is random; draw i is
            what `secateurs.global_prune` does with the seed ``seed + i``.
        seed: seed of the first draw.

    Raises:
        InvalidArgumentError: a value is out of range or unknown, a list is empty, or two scores
            have one name.
    """

    p_prune: float | Sequence[float] = P_PRUNE
    p_bern: float | Sequence[float] = 1.0
    prune_type: str | Sequence[str] = "global"
    granularity: str | Sequence[str] = "weight"
    scope: str | Sequence[str] = "global"
    score: Score | Sequence[Score] = "magnitude"
    repair: str | Sequence[str] = field(default=(), repr=False)
    layers: Layers | None = None
    include: Patterns | None = None
    exclude: Patterns | None = None
    ratios: Mapping[str, float] | None = None
    draws: int = 1
    seed: int = 0
    cells: tuple[Cell, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws", check_count("draws", self.draws))
        object.__setattr__(self, "seed", check_seed("seed", self.seed))
        if not -(2**63) <= self.seed < 2**63 - self.draws:
            raise InvalidArgumentError(Argument("seed"), f" must fit into 64 bits, got {self.seed}")
        for name in ("p_prune", "p_bern", "prune_type", "granularity", "scope", "score"):
            # An iterator is read once.
            object.__setattr__(self, name, tuple(several(name, getattr(self, name))))
        object.__setattr__(self, "repair", repair_steps(self.repair))
        if self.repair and "gradient" in self.prune_type:
            raise InvalidArgumentError(
                "gradient pruning leaves the outputs as they are, so there is nothing to repair: "
                "leave out ", Argument("repair"), ", or write ", Argument("prune_type", "global"),
            )  # fmt: skip
        settings = list(dict.fromkeys(self._settings()))
        _refuse_namesakes(settings)
        self._refuse_unused_ratios()
        cells = tuple(
            self._cell(setting, p_prune, p_bern)
            for setting in settings
            for p_bern in self.p_berns
            for p_prune in self.ratios_of(setting)
            # Without pruning there is nothing to repair; the plain cell is the dense network.
            if not (setting.repair and 0 in (p_prune, p_bern))
        )
        object.__setattr__(self, "cells", cells)

    @property
    def p_prunes(self) -> list[float]:
        """The ratios, checked, ascending, each once."""
        return sorted({check_ratio("p_prune", p) for p in several("p_prune", self.p_prune)})

    def ratios_of(self, setting: SelectionOptions) -> list[float]:
        """The ratios at which a setting is measured: with the scope N:M, its own."""
        if setting.neighbours is None:
            return self.p_prunes
        return [*(p for p in self.p_prunes if p == 0), setting.neighbours.ratio]

    @property
    def p_berns(self) -> list[float]:
        """The probabilities, checked, descending, each once."""
        values = {check_ratio("p_bern", p) for p in several("p_bern", self.p_bern)}
        return sorted(values, reverse=True)

    @property
    def variants(self) -> list[Variant]:
        """Every network to evaluate, each once, the dense one first."""
        unique = {v.key: v for cell in self.cells for v in cell.variants}
        return sorted(unique.values(), key=lambda v: not v.is_dense)

    @property
    def criteria(self) -> list[Criterion]:
        """The criteria of all settings, each once."""
        return list(dict.fromkeys(cell.setting.criterion for cell in self.cells))

    @property
    def barrier(self) -> Barrier:
        """The parameters that cannot be pruned with every prune type of the grid."""
        gradient = any(cell.setting.prune_type == "gradient" for cell in self.cells)
        return gradient_barrier if gradient else no_barrier

    def _refuse_unused_ratios(self) -> None:
        """Refuse ratios that were asked for, and that no scope N:M has, if there are no others."""
        scopes = [NOfM.read(scope) for scope in self.scope]
        if self.p_prune == P_PRUNE:
            return
        for p_prune in self.p_prunes:
            if not any(scope is None or scope.takes(p_prune) for scope in scopes):
                ratio_in(self.scope[0], p_prune)

    def _settings(self) -> Iterator[Setting]:
        names = ("prune_type", "granularity", "scope", "score")
        shared = {name: getattr(self, name) for name in ("layers", "include", "exclude")}
        shared["ratios"] = None if self.ratios is None else tuple(self.ratios.items())
        for values in product(*(getattr(self, name) for name in names)):
            for steps in dict.fromkeys(((), tuple(self.repair))):
                yield Setting(**dict(zip(names, values, strict=True)), **shared, repair=steps)

    def _cell(self, setting: Setting, p_prune: float, p_bern: float) -> Cell:
        random = p_prune > 0 and (0 < p_bern < 1 or (setting.criterion.is_random and p_bern > 0))
        seeds = range(self.seed, self.seed + (self.draws if random else 1))
        variants = tuple(Variant(setting, p_prune, p_bern, seed) for seed in seeds)
        return Cell(setting, p_prune, p_bern, variants)


def several(name: str, value: Any) -> list[Any]:
    """A single value, or the values of a sequence, an array or a tensor, as a list."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    values = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not values:
        raise InvalidArgumentError(f"{name} is empty; give at least one value")
    return values


def repair_steps(repair: str | Sequence[str]) -> tuple[str, ...]:
    """The steps of a repair, checked; one may be given alone."""
    steps = (repair,) if isinstance(repair, str) else tuple(repair)
    for step in steps:
        check_choice("repair", step, STEPS)
    return steps


def _refuse_namesakes(settings: Sequence[Setting]) -> None:
    """Refuse two scores of one name, since rows and saved progress know them by name."""
    scores: dict[str, Score] = {}
    for setting in settings:
        name = setting.score_name
        if scores.setdefault(name, setting.score) != setting.score:
            raise InvalidArgumentError(
                f"two scores are called {name!r}, so their rows could not be told "
                "apart: give each function a __name__ of its own"
            )
