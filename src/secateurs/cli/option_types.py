"""Types of options, panels of the help, and options that commands share."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from cyclopts import CoercionError, Group, Parameter, Token, convert

from secateurs._io.text import shortened
from secateurs._validation import check_ratio
from secateurs.criteria import score_names
from secateurs.errors import InvalidArgumentError

T = TypeVar("T")

DIGITS_FAMILY = ("digits-plain", "digits-wide", "digits-residual", "digits-patches")
DIGITS_NETWORKS = ("digits", "digits-cnn", *DIGITS_FAMILY)
"""The small networks on the digits of scikit-learn, as `secateurs.zoo.load_model` names them."""


def panel(title: str, number: int) -> Callable[[T], T]:
    """Decorate a dataclass: each field becomes an option, shown under a title in the help.

    Args:
        title: title of the panel.
        number: from 1, the panel's position in the help.
    """
    options = Parameter(name="*", group=Group(title, sort_key=number))
    return lambda declared: options(with_help(declared))


def with_help(declared: T) -> T:
    """Join the lines of each docstring entry, since the help wraps them to the terminal."""
    declared.__doc__ = re.sub(r"\n {12}(?=\S)", " ", declared.__doc__ or "")
    return declared


def separated(kind: Any, tokens: Sequence[Token]) -> Any:
    """Read values with spaces or commas between them: ``0 0.1,0.2`` are three."""
    parts = [part for token in tokens for part in _parts(token)]
    if int in get_args(kind):
        return tuple(whole(int, [part]) for part in parts)
    return convert(kind, parts)


def ratio(kind: object, tokens: Sequence[Token]) -> float:  # noqa: ARG001
    """Read a ratio, and refuse one outside of 0 to 1."""
    value: Any = convert(float, tokens)
    return check_ratio((tokens[0].keyword or "").strip("-").replace("-", "_"), value)


def separated_ratios(kind: object, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Read ratios as `separated` does."""
    return tuple(ratio(kind, [part]) for token in tokens for part in _parts(token))


def whole(kind: object, tokens: Sequence[Token]) -> int:  # noqa: ARG001
    """Read a whole number of 64 bits; the parser alone would round 1.5."""
    text = tokens[0].value
    if not re.fullmatch(r"[+-]?\d+", text):
        raise CoercionError(token=tokens[0], target_type=int)
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise InvalidArgumentError(
            f"{tokens[0].keyword} must fit into 64 bits, got {shortened(text, 40)}"
        )
    return int(text)


Several = Annotated[tuple[T, ...], Parameter(converter=separated)]
"""An option that takes any number of values."""
Whole = Annotated[int, Parameter(converter=whole)]
MaybeWhole = Annotated[int | None, Parameter(converter=whole)]
Ratio = Annotated[float, Parameter(converter=ratio)]
MaybeRatio = Annotated[float | None, Parameter(converter=ratio)]
Ratios = Annotated[tuple[float, ...], Parameter(converter=separated_ratios)]


def scores(*, data_free: bool = False) -> Parameter:
    """The help of ``--score``, with the names in `secateurs.criteria.CRITERIA`.

    Args:
        data_free: whether to leave out criteria that need data.
    """
    names = ", ".join(score_names(data_free=data_free))
    return Parameter(help=f"The criterion, the least important are candidates: {names}.")


Granularity = Literal["weight", "kernel", "filter"]
Scope = str  # global, layer, or N:M, of which there are many: `SelectionOptions` checks it
PruneType = Literal["global", "gradient"]
RepairStep = Literal["batchnorm", "channels", "reconstruct", "sparsegpt", "distill"]


COMPETING = Parameter(group=Group("What competes", sort_key=2.5))


@with_help
@dataclass(frozen=True, kw_only=True)
class Competing:
    """Which units compete, as `secateurs.selection.selection_options.SelectionOptions` has them.

    Args:
        granularity: What is pruned as one unit.
        score: The criterion.
        layers: Kinds of layers that compete: conv, conv2d, linear, attention, experts, all, ...;
            default conv, linear, attention and experts.
        include: Prune only these, globs on the names of parameters or of modules around them.
        exclude: Do not prune these, globs on such names.
    """

    granularity: Annotated[Granularity, COMPETING] = "weight"
    score: Annotated[str, scores(), COMPETING] = "magnitude"
    layers: Annotated[Several[str], COMPETING] = ()
    include: Annotated[Several[str], COMPETING] = ()
    exclude: Annotated[Several[str], COMPETING] = ()


@with_help
@dataclass(frozen=True, kw_only=True)
class CompetingInScope(Competing):
    """Which units compete, and who competes with whom.

    Args:
        scope: Who competes with whom, global (all units) or layer.
    """

    scope: Annotated[Scope, COMPETING] = "global"


@with_help
@dataclass(frozen=True, kw_only=True)
class DataFree(CompetingInScope):
    """Which units compete, where no image is read before the pruning."""

    score: Annotated[str, scores(data_free=True), COMPETING] = "magnitude"


@with_help
@dataclass(frozen=True, kw_only=True)
class NetworkAndData:
    """The network and the images.

    Args:
        arch: torchvision:NAME (or just NAME), timm:NAME, hf:NAME, a folder after timm: or hf:,
            package.module:function, mlpnet, resnet20, ..., or digits.
        weights: A .safetensors or .pt file, or the name of published weights; torchvision models
            have IMAGENET1K_V1 unless you say so.
        num_classes: Classes of a weights FILE, if not the usual number.
        data: A folder (DIR/val/CLASS/*, DIR/CLASS/*, or DIR/images.csv with DIR/images/), digits,
            mnist, cifar10, ...
        data_root: The folder of named data sets, and of their downloads.
        split: Which part of the data: val, test, ...
        limit: Use this many images, spread evenly over the data.
        skip_corrupt: Leave out images that cannot be read, and go on.
    """

    arch: Annotated[str, Parameter(alias="-a")] = "digits"
    weights: str | None = None
    num_classes: MaybeWhole = None
    data: Annotated[str | None, Parameter(alias="-d")] = None
    data_root: Path | None = None
    split: str | None = None
    limit: MaybeWhole = None
    skip_corrupt: bool = False


@with_help
@dataclass(frozen=True, kw_only=True)
class ResumableOutput:
    """Where a command runs that can go on where it was interrupted, and where its results go.

    Args:
        device: auto, cpu, cuda, cuda:1, mps, ...
        output: Folder for results; default secateurs-results/NAME.
        config: An earlier run, its folder or a file in it, whose options count where they are not
            written here; alone, it goes on with that run.
        resume: Go on where this run was interrupted, or delete its results and begin again.
    """

    device: str = "auto"
    output: Annotated[Path | None, Parameter(alias="-o")] = None
    config: Path | None = None  # `saved_command.expand` has replaced it by the options
    resume: Annotated[bool, Parameter(negative="--overwrite")] = True


@with_help
@dataclass(frozen=True, kw_only=True)
class PruningGrid:
    """How to prune, with any number of values each.

    Args:
        p_prune: Ratios of units that are candidates, 0 to 1.
        p_bern: Probability with which each candidate is pruned.
        prune_type: global (forward and backward pass, default) or gradient (backward pass alone).
        granularity: What is pruned as one unit; default weight.
        scope: Who competes with whom: global (all units, default), layer, or N:M, such as 2:4: of
            every 4 consecutive inputs 2 are kept.
        score: Names of criteria; default magnitude.
        layers: Kinds of layers that compete: conv, conv2d, linear, attention, experts, all, ...;
            default conv, linear, attention and experts. conv2d is what the original method prunes.
        include: Prune only these, globs on the names of parameters or of modules around them.
        exclude: Do not prune these, globs on such names.
    """

    p_prune: Ratios = ()
    p_bern: Ratios = ()
    prune_type: Several[PruneType] = ()
    granularity: Several[Granularity] = ()
    scope: Several[Scope] = ()
    score: Annotated[Several[str], scores()] = ()
    layers: Several[str] = ()
    include: Several[str] = ()
    exclude: Several[str] = ()


def given(options: Any, *without: str) -> Mapping[str, Any]:
    """The options that were given, by name; the library has defaults for the others.

    Args:
        options: a dataclass of options.
        without: names to leave out.
    """
    found = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in found.items()
        if value not in (None, ()) and name not in without
    }


def _parts(token: Token) -> list[Token]:
    """The values in a word; a word without any is kept, so that its type refuses it."""
    values = [part for part in map(str.strip, token.value.split(",")) if part] or [token.value]
    return [token.evolve(value=value) for value in values]
