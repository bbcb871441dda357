"""The variants that are compared: the plain attack, noise, and recipes of surrogates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from secateurs._validation import check_choice, check_ratio
from secateurs.criteria import check_data_free
from secateurs.errors import InvalidArgumentError
from secateurs.pruning import PRUNE_TYPES
from secateurs.selection.selection_options import SelectionOptions
from secateurs.surrogates import RECIPES
from secateurs.surrogates.draw_sequence import check_redraw
from secateurs.transfer.network import FromPixels, Network

PLAIN, NOISE = "plain", "noise"
# The options of dwp, from the outermost to the innermost loop over their values.
_OF_DWP: Sequence[str] = (
    *("granularity", "scope", "score", "redraw", "prune_type"),
    *("p_prune", "p_bern"),
)
# Options that a variant's name shows with their own name, since the value alone would be unclear.
_NAMED = ("score", "redraw", "prune_type", "layers", "include", "exclude")


@dataclass(frozen=True, kw_only=True)
class AttackVariant:
    """One way to make the surrogate, and so one row of the result table.

    Attributes:
        recipe: ``plain``, ``noise``, or a name in `secateurs.surrogates.RECIPES`.
        options: the recipe's arguments, by name, in the order of the variant's name.
    """

    recipe: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        """The recipe, its ratios, and the options that are not defaults."""
        shown = dict(self.options)
        ratios = [f"{shown.pop(name):g}" for name in ("p_prune", "p_bern") if name in shown]
        named = [f"{name}={option_text(shown.pop(name))}" for name in _NAMED if name in shown]
        return " ".join([self.recipe, *ratios, *map(str, shown.values()), *named])

    @property
    def defaults(self) -> dict[str, Any]:
        """The recipe's default options."""
        return {
            "prune_type": "global",
            "redraw": "forward",
            "granularity": "weight",
            "scope": "layer" if self.recipe == "mup" else "global",
            "score": "taylor" if self.recipe == "mup" else "magnitude",
            "p_prune": 1.0 if self.recipe == "rapa" else 0.0,
            "p_bern": 1.0 if self.recipe == "mup" else 0.0,
        }

    def surrogate(self, network: Network, seed: int) -> FromPixels:
        """The surrogate that this variant makes of a network; it reads pixels."""
        if self.recipe == PLAIN:
            return network.dense
        try:
            made = RECIPES[self.recipe](network.inner, seed=seed, **dict(self.options))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"{self.recipe} does not fit {network.name}: ",
                error,
                "; leave the network or the recipe out, or write another recipe "
                f"({', '.join(name for name in RECIPES if name != self.recipe)})",
            ) from error
        return network.member(made)


@dataclass(frozen=True, kw_only=True)
class AttackVariants:
    """Every combination of recipes and options, without plain and noise.

    Args:
        recipe: names in `secateurs.surrogates.RECIPES`; ``plain``, which is always compared, adds
            nothing.
        p_prune: of dwp, default 0.3.
        p_bern: of dwp, default 0.5.
        granularity: of dwp; see `secateurs.SelectionOptions`.
        scope: of dwp; see `secateurs.SelectionOptions`.
        score: of dwp, a criterion that needs no data: ``magnitude``, ``random``, or one of yours.
        redraw: of dwp: ``forward``, ``step``, or a number of draws that are used in rotation.
        prune_type: of dwp: ``global``, or ``gradient`` for the backward pass alone.
        layers: of dwp; see `secateurs.SelectionOptions`.
        include: of dwp; see `secateurs.SelectionOptions`.
        exclude: of dwp; see `secateurs.SelectionOptions`.
        rapa_p_bern: of rapa, default 0.05.
        mup_p_prune: of mup, default 0.15.

    Raises:
        InvalidArgumentError: an unknown name, or a value out of range.

    Example:
        >>> variants = AttackVariants(recipe=["dwp", "mup"], p_bern=[0.2, 0.5])
        >>> [str(variant) for variant in variants.all]
        ['dwp 0.3 0.2', 'dwp 0.3 0.5', 'mup 0.15']
    """

    recipe: Sequence[str] = ("dwp",)
    p_prune: Sequence[float] = (0.3,)
    p_bern: Sequence[float] = (0.5,)
    granularity: Sequence[str] = ("weight",)
    scope: Sequence[str] = ("global",)
    score: Sequence[str] = ("magnitude",)
    redraw: Sequence[str | int] = ("forward",)
    prune_type: Sequence[str] = ("global",)
    layers: Sequence[str] | None = None
    include: Sequence[str] | None = None
    exclude: Sequence[str] | None = None
    rapa_p_bern: Sequence[float] = (0.05,)
    mup_p_prune: Sequence[float] = (0.15,)

    def __post_init__(self) -> None:
        for name, choices in (
            ("recipe", (PLAIN, *RECIPES)),
            ("prune_type", PRUNE_TYPES),
        ):
            for value in getattr(self, name):
                check_choice(name, value, choices)
        for score in self.score:
            check_data_free(score)
        for name in ("p_prune", "p_bern", "rapa_p_bern", "mup_p_prune"):
            for value in getattr(self, name):
                check_ratio(name, value)
        for granularity, scope in product(self.granularity, self.scope):
            options = SelectionOptions(granularity=granularity, scope=scope, **self._chosen)
            for p_prune in self.p_prune if "dwp" in self.recipe else ():
                options.ratio(p_prune)
        object.__setattr__(self, "redraw", tuple(map(check_redraw, self.redraw)))

    @property
    def all(self) -> list[AttackVariant]:
        """Each variant once, in the order of the recipes."""
        recipes = [name for name in self.recipe if name != PLAIN]
        found = [variant for name in recipes for variant in self._of(name)]
        return list(dict.fromkeys(found))

    def _of(self, recipe: str) -> list[AttackVariant]:
        ratios = {"rapa": ("p_bern", self.rapa_p_bern), "mup": ("p_prune", self.mup_p_prune)}
        if recipe in ratios:
            name, values = ratios[recipe]
            return [AttackVariant(recipe=recipe, options=((name, value),)) for value in values]
        grid = product(*(getattr(self, name) for name in _OF_DWP))
        named = (dict(zip(_OF_DWP, values, strict=True)) for values in grid)
        return [self._diversified(recipe, values) for values in named]

    def _diversified(self, recipe: str, values: Mapping[str, Any]) -> AttackVariant:
        """A variant without the options that are defaults, which keeps its name short."""
        usual = AttackVariant(recipe=recipe).defaults
        options = {name: values[name] for name in ("p_prune", "p_bern")}
        others = {n: value for n, value in values.items() if n not in options and value != usual[n]}
        options |= others | self._chosen
        return AttackVariant(recipe=recipe, options=tuple(options.items()))

    @property
    def _chosen(self) -> dict[str, Any]:
        """The options that say which weights compete."""
        given = {name: getattr(self, name) for name in ("layers", "include", "exclude")}
        return {name: tuple(value) for name, value in given.items() if value}


def option_text(value: Any) -> str:
    """An option as text; several values joined by ``;``."""
    return ";".join(map(str, value)) if isinstance(value, tuple) else str(value)
