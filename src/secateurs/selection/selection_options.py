"""The options of a selection: units, scope, criterion, and which weights compete."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict, cast

from secateurs._validation import check_choice, check_keywords, check_seed, check_seeded
from secateurs.criteria import Criterion, Score, criterion_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.masks.granularity import GRANULARITIES
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns, pattern_list
from secateurs.parameters.layer_kinds import LAYER_NAMES
from secateurs.selection.scopes import NOfM, ratio_in


class SelectionKeywords(TypedDict, total=False):
    """The fields of `SelectionOptions`, for functions that take them as keyword arguments."""

    granularity: str
    scope: str
    score: Score
    layers: Layers | None
    include: Patterns | None
    exclude: Patterns | None
    seed: int | None


@dataclass(frozen=True, kw_only=True, repr=False)
class SelectionOptions:
    """How a selection chooses its candidates, whatever their ratio.

    Every function that selects takes these as keyword arguments.

    Args:
        granularity: what is pruned as one unit: ``"weight"`` (one element), ``"kernel"`` (one 2-D
            kernel of a convolution) or ``"filter"`` (one output channel).
        scope: who competes with whom: ``"global"`` (all units), ``"layer"`` (the units of each
            parameter among themselves), or ``"N:M"``, such as ``"2:4"``: of every M consecutive
            inputs of an output N are kept, so p_prune is (M - N) / M and may be left out. The
            inputs are those of ``weight.flatten(1)``, as
            ``torch.sparse.to_sparse_semi_structured`` takes them.
        score: the criterion, how important a unit is: the least important are candidates. A name
            in `secateurs.criteria.CRITERIA`: ``"magnitude"`` (the L1 norm), ``"gradient"``,
            ``"taylor"``, ``"lamp"``, ``"wanda"``, ``"obs"``, ``"random"``; or a function that takes
            a `Target` and returns a tensor of scores, one for each element or for each unit.
        layers: which kinds of layers compete, by default every convolution, linear layer, attention
            projection and stack of experts. Names or module types; see `secateurs.find_targets`.
        include: prune only these: globs on the names of parameters or of the modules that contain
            them, or module types; see `secateurs.find_targets`.
        exclude: do not prune these: globs or module types, as for ``include``.
        seed: of random scores and draws. It gives the same candidates on every device.

    Raises:
        InvalidArgumentError: an unknown name, or something that is neither a name nor a module
            type.

    Example:
        >>> SelectionOptions(granularity="kernel", exclude=["conv1", "fc"])
        SelectionOptions(granularity='kernel', exclude=('conv1', 'fc'))
    """

    granularity: str = "weight"
    scope: str = "global"
    score: Score = "magnitude"
    layers: Layers | None = None
    include: Patterns | None = None
    exclude: Patterns | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("granularity", self.granularity, GRANULARITIES)
        if self.neighbours is not None and self.granularity != "weight":
            raise InvalidArgumentError(
                Argument("scope", self.scope),
                " chooses single weights: write ",
                Argument("granularity", "weight"),
            )
        criterion_of(self.score)
        for name in ("layers", "include", "exclude"):
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if self.seed is not None:
            object.__setattr__(self, "seed", check_seed("seed", self.seed))

    @classmethod
    def read(cls, function: Callable[..., object], keywords: Mapping[str, object]) -> Self:
        """Make options of the keyword arguments of a call.

        Args:
            function: the function that was called, for the error.
            keywords: the arguments.

        Raises:
            InvalidArgumentError: there is no such argument (the error suggests the nearest one), or
                a value is wrong.
        """
        check_keywords(function, keywords, [field.name for field in fields(cls)])
        return cls(**cast("Any", keywords))

    def ratio(self, p_prune: float | None) -> float:
        """The ratio of units that are candidates: ``p_prune``, or that of the scope N:M.

        Raises:
            InvalidArgumentError: it is no ratio, or not that of the scope.
        """
        return ratio_in(self.scope, p_prune)

    @property
    def neighbours(self) -> NOfM | None:
        """N and M of the scope N:M; None for the other scopes."""
        return NOfM.read(self.scope)

    @property
    def layer_choice(self) -> LayerChoice:
        """Which weights compete: ``layers``, ``include`` and ``exclude``."""
        return LayerChoice(self.layers, self.include, self.exclude)

    @property
    def criterion(self) -> Criterion:
        """The criterion that ``score`` names or is."""
        return criterion_of(self.score)

    @property
    def score_name(self) -> str:
        """The criterion's name in result rows: for a function, that of the function."""
        return self.criterion.name

    def __repr__(self) -> str:
        """The options that differ from their defaults."""
        values = ((field, getattr(self, field.name)) for field in fields(self))
        shown = (
            f"{field.name}={getattr(value, '__name__', repr(value))}"
            for field, value in values
            if value != field.default
        )
        return f"{type(self).__name__}({', '.join(shown)})"


def check_randomness(options: SelectionOptions, p_bern: float) -> None:
    """Refuse random numbers without a seed, where no generator is taken.

    Raises:
        InvalidArgumentError: masks are drawn, or units ranked, at random, and there is no seed.
    """
    random = Argument("p_bern", p_bern) if 0 < p_bern < 1 else None
    random = Argument("score", options.score) if options.criterion.is_random else random
    check_seeded(options.seed, random)


def _checked(option: str, value: Patterns | None) -> Patterns | None:
    """Check an option's names and types; several become a tuple, as iterators are read once."""
    if value is None:
        return None
    items = pattern_list(option, value)
    for item in items:
        if option == "layers" and isinstance(item, str):
            check_choice(option, item, LAYER_NAMES)
    return value if isinstance(value, str | type) else tuple(items)
