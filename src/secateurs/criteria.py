"""The criteria: how important a weight is. The least important are pruned first.

`CRITERIA` is the list of them that selection, sweeps, surrogates, checkpoints and the command line
read. A new criterion is a function of a few lines with the decorator `register`, here or in a
program of yours.

This module imports no torch, so that the command line knows the names without it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from secateurs._validation import check_choice
from secateurs.errors import Argument, InvalidArgumentError

if TYPE_CHECKING:
    from torch import Tensor

    from secateurs.parameters.target import Target

    ScoreFunction = Callable[[Target], Tensor]
else:
    ScoreFunction = Callable[[Any], Any]

Score = str | ScoreFunction


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """A way to score weights.

    Attributes:
        name: the value of the option ``score`` that selects it.
        function: takes a `Target` (its ``name``, ``weight``, ``grad``, ``module``) and returns one
            score for each element, to be summed over each unit, or one for each unit. None if the
            scores are random numbers.
        needs_gradients: whether it reads ``target.grad``, which needs a backward pass first.
        needs_inputs: whether it reads the layers' inputs, which needs data.
        absolute: whether the scores are the absolute values of what the function returns.
    """

    name: str
    function: ScoreFunction | None
    needs_gradients: bool = False
    needs_inputs: bool = False
    absolute: bool = False

    @property
    def is_random(self) -> bool:
        """Whether its scores are random numbers, which need a generator or a seed."""
        return self.function is None

    @property
    def needs_data(self) -> bool:
        """Whether the scores depend on more than the weights."""
        return self.needs_gradients or self.needs_inputs

    @property
    def is_built_in(self) -> bool:
        """Whether this package defines it, so that its name alone says what is computed."""
        # Some callables have no module: partials, and functions that `exec` defines.
        module = getattr(self.function or register, "__module__", None) or ""
        return module.partition(".")[0] == __name__.partition(".")[0]


CRITERIA: dict[str, Criterion] = {}
"""Every criterion, by its name."""


def register(
    *,
    name: str | None = None,
    needs_gradients: bool = False,
    needs_inputs: bool = False,
    absolute: bool = False,
) -> Callable[[ScoreFunction], ScoreFunction]:
    """Add a function to `CRITERIA`, so that the option ``score`` accepts its name.

    A name belongs to one function. Defining that function again, as a notebook does, replaces it.

    Args:
        name: as for `Criterion`; default the function's name.
        needs_gradients: as for `Criterion`.
        needs_inputs: as for `Criterion`.
        absolute: as for `Criterion`.

    Returns:
        A decorator that leaves the function as it is.

    Raises:
        InvalidArgumentError: another function has this name, or the function has no name of its
            own, as a ``functools.partial``, and none was given.

    Example:
        >>> import torch, secateurs as sc
        >>> @register()
        ... def relative(target):
        ...     return target.weight.abs() / target.weight.abs().mean()
        >>> sc.select(torch.nn.Linear(4, 5), 0.3, score="relative").count
        6
        >>> _ = CRITERIA.pop("relative")
    """

    def decorate(function: ScoreFunction) -> ScoreFunction:
        label = name or getattr(function, "__name__", "")
        if not label:
            raise InvalidArgumentError(
                f"a {type(function).__name__} has no name of its own: give ",
                Argument("name"),
                " to register it",
            )
        criterion = Criterion(
            name=label,
            function=function,
            needs_gradients=needs_gradients,
            needs_inputs=needs_inputs,
            absolute=absolute,
        )
        known = CRITERIA.get(criterion.name)
        if known is not None and _defined_as(known.function) != _defined_as(function):
            raise InvalidArgumentError(
                f"there is a criterion {criterion.name!r} already: give ",
                Argument("name"),
                " to register yours under another name",
            )
        CRITERIA[criterion.name] = criterion
        return function

    return decorate


@register(absolute=True)
def magnitude(target: "Target") -> "Tensor":
    """|w|; pooled, the L1 norm of the unit (Han et al. 2015, section 3).

    A float8 weight of a quantised model is multiplied by its scale.
    """
    weight = target.weight  # read once: the property checks whether the weight was trained
    if weight.element_size() > 1:
        return weight
    from secateurs.parameters.target import scaled_weight

    return scaled_weight(target)


@register(needs_gradients=True, absolute=True)
def gradient(target: "Target") -> "Tensor":
    """|dL/dw|, from the gradient that the caller's backward passes left."""
    return target.grad.detach()


@register(needs_gradients=True, absolute=True)
def taylor(target: "Target") -> "Tensor":
    """|w * dL/dw|, the first-order change of the loss (Molchanov et al. 2017, equation 8)."""
    return _wide(target.weight) * _wide(target.grad.detach())


@register()
def lamp(target: "Target") -> "Tensor":
    """w^2 / (the sum of w^2 over the layer's weights that are no smaller), itself included.

    Ranked globally, it gives each layer its own ratio (Lee et al. 2021, equation 4). Of a model
    that is divided over ranks, each layer is gathered in turn.
    """
    from secateurs.distributed.dtensor import full_of

    weight = full_of(target.weight)
    squares = weight.double().flatten().square()
    order = squares.argsort(stable=True)
    ascending = squares[order]
    # The sum over the weights that are no smaller is zero only where all weights of the layer are.
    left = ascending.flip(0).cumsum(0).flip(0)
    scores = squares.new_zeros(squares.shape)
    scores[order] = ascending / left.clamp(min=5e-324)
    return scores.view(weight.shape)


@register(needs_inputs=True)
def wanda(target: "Target") -> "Tensor":
    """|w| times the root mean square of its input (Sun et al. 2024, equation 1).

    Of a convolution the input is what one position of the kernel sees of one channel.
    """
    inputs, weight = target.inputs, _wide(target.weight)
    squares = inputs.moment.diagonal(dim1=-2, dim2=-1)
    return weight.abs() * inputs.spread(squares.sqrt(), weight)


@register(needs_inputs=True)
def obs(target: "Target") -> "Tensor":
    """w^2 / [H^-1]_jj: the error of the layer's outputs without w, after its other weights adjust.

    H is the second moment of the inputs (Hassibi and Stork 1993, equation 5, layer by layer as in
    Frantar and Alistarh 2022, equation 3), damped by a hundredth of its mean diagonal.
    """
    inputs, weight = target.inputs, target.weight.double()
    return weight.square() / inputs.spread(inputs.inverse_diagonal(), weight)


CRITERIA["random"] = Criterion(name="random", function=None)


def score_names(*, data_free: bool = False) -> list[str]:
    """The names of all criteria, or only of those that need nothing but the weights."""
    return [name for name, one in CRITERIA.items() if not (data_free and one.needs_data)]


def check_data_free(score: object) -> None:
    """Check that a score is the name of a criterion that needs nothing but the weights.

    Raises:
        InvalidArgumentError: it is not.
    """
    names = score_names(data_free=True)
    if isinstance(score, str) and score in CRITERIA and score not in names:
        raise InvalidArgumentError(
            Argument("score"),
            f" must be one of {', '.join(names)}; got {score!r}, which needs data",
        )
    check_choice("score", score, names)


def criterion_of(score: Score) -> Criterion:
    """The criterion of a name, or of a function.

    The scores of a function may be negative, and it may read gradients.

    Raises:
        InvalidArgumentError: it is neither a name in `CRITERIA` nor a function.
    """
    if callable(score):
        name = getattr(score, "__name__", "callable")
        return Criterion(name=name, function=score, needs_gradients=True)
    return CRITERIA[check_choice("score", score, score_names())]


def _wide(values: "Tensor") -> "Tensor":
    """Values in float32 or wider: a product in float16 would underflow, and so make ties."""
    return values if values.element_size() == 8 else values.float()


def _defined_as(function: ScoreFunction | None) -> tuple[str, str]:
    """Module and qualified name of a function, of that in a partial, or of an object's class."""
    if function is None:
        return "", ""
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return named.__module__, named.__qualname__
