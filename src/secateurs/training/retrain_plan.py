"""The settings of a run of `secateurs.training.retrain`."""

from dataclasses import dataclass, field, replace

from torch import nn, optim

from secateurs._validation import check_choice, check_count, check_positive, check_ratio
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.parameters.model_contents import ModelContents
from secateurs.selection._select import choose
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import SelectionOptions
from secateurs.training.pruner import Pruner
from secateurs.training.pruner_arguments import check_neighbours, check_schedule
from secateurs.training.regrowth import GradientRegrowth, MagnitudeRegrowth, Regrowth
from secateurs.training.schedules import Cubic, Iterative, OneShot, Schedule
from secateurs.training.settings import TrainingSettings

SCHEDULES = ("one-shot", "iterative", "cubic")
REGROWTHS = ("none", "magnitude", "gradient")
_REGROWING = 0.75  # of the epochs, as in Evci et al. (2020), section 3


@dataclass(frozen=True, kw_only=True)
class RetrainPlan:
    """The settings of a run. Where methods take ``steps``, these are the steps of an epoch.

    Attributes:
        ratio: of units that are pruned in the end, from 0 to 1.
        dense: how the network is trained before it is pruned; with 0 epochs it is not.
        retraining: how it is trained while it is pruned.
        schedule: one of `SCHEDULES`.
        rounds: of the iterative schedule. All have the same number of epochs, and the last one the
            remaining epochs too.
        rewind: whether at each round the kept weights get back the values that they had before the
            retraining (Frankle and Carbin 2019).
        ramp: the share of the epochs over which the ratio of the cubic schedule grows.
        every: steps between two prunings of the cubic schedule, and between two regrowths. The
            schedule prunes more often if it would prune less than ten times. None is 100, but 1
            with regrowth by magnitude: weights that come back are as large as kept ones, and many
            at once change the network too much.
        keep_at_least: the share of its units that each layer keeps at least.
        regrowth: one of `REGROWTHS`.
        distill: the weight of the dense network's outputs in the loss of the retraining, from 0 to
            1; see `KnowledgeDistillation`.
        temperature: of these outputs.
        options: granularity, scope, which weights compete, and how they are scored; the plan's seed
            is used instead of theirs.
        seed: of order, augmentation and draws.

    Raises:
        InvalidArgumentError: a value is unknown or out of range.
    """

    ratio: float
    dense: TrainingSettings
    retraining: TrainingSettings
    schedule: str = "cubic"
    rounds: int = 5
    rewind: bool = False
    ramp: float = 0.5
    every: int | None = None
    keep_at_least: float = 0.0
    regrowth: str = "none"
    distill: float = 0.0
    temperature: float = 4.0
    options: SelectionOptions = field(default_factory=SelectionOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratio", check_ratio("ratio", self.ratio))
        neighbours = NOfM.read(self.options.scope)
        if neighbours is not None and (
            self.schedule != "one-shot" or not neighbours.takes(self.ratio)
        ):
            raise InvalidArgumentError(
                Argument("scope", self.options.scope), " prunes at once: write ",
                Argument("schedule", "one-shot"), " and ", Argument("ratio", neighbours.ratio),
            )  # fmt: skip
        check_ratio("ramp", self.ramp)
        kept = check_ratio("keep_at_least", self.keep_at_least)
        too_much = self.ratio + kept > 1 + 1e-9  # but for rounding
        if too_much and self.options.scope != "layer":  # there keep_at_least comes first
            raise InvalidArgumentError(
                Argument("keep_at_least", kept),
                f" of each layer is to be kept and {self.ratio:g} pruned, more than all: write a "
                "smaller one, or a smaller ", Argument("ratio"),
            )  # fmt: skip
        check_ratio("distill", self.distill)
        temperature = check_positive("temperature", self.temperature, 4.0)
        object.__setattr__(self, "temperature", temperature)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_choice("regrowth", self.regrowth, REGROWTHS)
        check_count("rounds", self.rounds)
        if self.every is not None:
            check_count("every", self.every)
        if self.retraining.epochs < 1:
            raise InvalidArgumentError(
                Argument("epochs"), " of the retraining must be at least 1, got 0"
            )
        if self.schedule == "iterative" and self.retraining.epochs < self.rounds:
            raise InvalidArgumentError(
                f"{self.rounds} rounds need at least as many epochs of retraining, got "
                f"{self.retraining.epochs}: write more ", Argument("epochs"), ", or fewer ",
                Argument("rounds"),
            )  # fmt: skip
        if self.rewind and self.schedule != "iterative":
            raise InvalidArgumentError(
                Argument("rewind"), " returns weights at each round, and only the iterative "
                "schedule has rounds: write ", Argument("schedule", "iterative"), ", or leave it "
                "out",
            )  # fmt: skip
        if self.options.criterion.needs_inputs:
            raise InvalidArgumentError(
                Argument("score", self.options.score_name), " reads what goes into the layers, "
                "which a training does not observe: write ", Argument("score", "magnitude"),
            )  # fmt: skip
        # What a `Pruner` refuses, before a dense network is trained in vain.
        schedule, regrowth = self.make_schedule(1), self._regrow(1)
        check_schedule(schedule, regrowth)
        check_neighbours(self.options, schedule, regrowth, self.keep_at_least)

    def check_ranks(self, ranks: int) -> None:
        """Check that this number of processes can share each batch.

        Raises:
            InvalidArgumentError: the batch size is no multiple of their number.
        """
        for settings in (self.dense, self.retraining):
            if settings.batch_size % ranks:
                raise InvalidArgumentError(
                    Argument("batch_size", settings.batch_size),
                    f" cannot be shared by {ranks} ranks: write a multiple of their number",
                )

    def check_model(self, model: nn.Module) -> None:
        """Check that the options fit a model; its weights may be those before any training.

        Raises:
            InvalidArgumentError: they do not.
        """
        options = replace(self.options, score="magnitude", seed=None)
        candidates = choose(ModelContents(model), self.ratio, options, warn=False)
        if candidates.count == candidates.total and not self.keep_at_least:
            raise InvalidArgumentError(
                f"a ratio of {self.ratio:.12g} prunes all {candidates.total:,} units, after which "
                "the network learns nothing: write a smaller ",
                Argument("ratio"),
            )

    def settings(self, phase: str) -> TrainingSettings:
        """The settings of a phase."""
        return self.dense if phase == "dense" else self.retraining

    def make_schedule(self, steps: int) -> Schedule:
        """The schedule in steps of the optimizer."""
        epochs = self.retraining.epochs
        if self.schedule == "one-shot":
            return OneShot(self.ratio)
        if self.schedule == "cubic":
            end = max(round(self.ramp * epochs * steps), 1)
            return Cubic(self.ratio, end=end, every=min(self._every, max(end // 10, 1)))
        return Iterative(
            self.ratio, self.rounds, every=self._round_epochs * steps, begin=0,
            rewind=0 if self.rewind else None,
        )  # fmt: skip

    def make_pruner(self, model: nn.Module, optimizer: optim.Optimizer, steps: int) -> Pruner:
        """The `Pruner` of the retraining, which takes step 0 of the schedule at once."""
        return Pruner(
            model, optimizer, self.make_schedule(steps), regrow=self._regrow(steps),
            keep_at_least=self.keep_at_least, **vars(replace(self.options, seed=self.seed)),
        )  # fmt: skip

    def rate(self, phase: str, step: int, steps: int) -> float:
        """The learning rate at a step of a phase, from 0.

        With each round of the iterative schedule it starts from the highest.
        """
        settings = self.settings(phase)
        length = settings.epochs * steps
        if phase == "retrain" and self.schedule == "iterative":
            round_steps = self._round_epochs * steps
            number = min(step // round_steps, self.rounds - 1)
            step -= number * round_steps
            is_last = number == self.rounds - 1
            length = length - number * round_steps if is_last else round_steps
        return settings.rate(step, length, settings.warmup * steps)

    def is_final(self, epoch: int, steps: int) -> bool:
        """Whether no pruning follows after an epoch of retraining."""
        return epoch * steps >= self.make_schedule(steps).last

    @property
    def _every(self) -> int:
        default = 1 if self.regrowth == "magnitude" else 100
        return default if self.every is None else self.every

    @property
    def _round_epochs(self) -> int:
        return max(self.retraining.epochs // self.rounds, 1)

    def _regrow(self, steps: int) -> Regrowth | None:
        until = max(round(_REGROWING * self.retraining.epochs * steps), 1)
        if self.regrowth == "magnitude":
            return MagnitudeRegrowth(every=self._every, until=until)
        if self.regrowth == "gradient":
            # At random at once is how RigL starts; of a trained network the smallest weights go.
            start = "erk" if self.schedule == "one-shot" else "score"
            return GradientRegrowth(every=self._every, until=until, start=start)
        return None
