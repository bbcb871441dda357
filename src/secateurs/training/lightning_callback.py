"""Pruning in Lightning's Trainer; needs ``pip install 'secateurs[lightning]'``."""

from typing import Any, Literal, Unpack

from lightning.pytorch import Callback, LightningModule, Trainer, callbacks
from torch import nn

from secateurs._validation import check_choice
from secateurs.training._hold import several
from secateurs.training.pruner import Pruner
from secateurs.training.pruner_arguments import PrunerOptions
from secateurs.training.schedules import Schedule

_AVERAGING = ("StochasticWeightAveraging", "WeightAveraging")  # the second is new in Lightning 2.6


class LightningPruning(Callback):
    """Drives a `Pruner` in ``trainer.fit``, saves it with the checkpoints, and logs sparsity.

    A second call of ``fit`` goes on with the schedule; masks are held under its new optimizers.
    With another module it begins anew.
    Lightning's checkpoints contain the masks and the number of steps, so that
    ``fit(ckpt_path=...)`` goes on, also with a new callback. The logged name is ``sparsity``.
    Averages of Lightning's ``WeightAveraging`` and ``StochasticWeightAveraging`` are pruned too,
    since their weights become the module's.

    Args:
        schedule: when to prune, see `Pruner`.
        unit: what the schedule counts: "step" (of the optimizer, which may accumulate several
            batches) or "epoch". An epoch is counted at its last batch, before validation, so that
            what is validated is what is saved.
        **options: the other arguments of `Pruner`.

    Attributes:
        pruner: the `Pruner`; None before the first ``fit``.

    Example:
        >>> from secateurs.training import Cubic, LightningPruning
        >>> callback = LightningPruning(Cubic(0.9, end=10, every=1), unit="epoch")
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        unit: Literal["step", "epoch"] = "step",
        **options: Unpack[PrunerOptions],
    ):
        self.pruner: Pruner | None = None
        self._schedule = schedule
        self._unit = check_choice("unit", unit, ("step", "epoch"))
        self._options = options
        self._module: nn.Module | None = None
        self._coming: nn.Module | None = None
        self._saved: dict[str, Any] | None = None
        self._saved_for: nn.Module | None = None
        self._seen = 0
        self._counted = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note whose state a checkpoint has: Lightning loads it next, and does not say."""
        self._coming = pl_module

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune, or go on with the optimizers of this call."""
        optimizers = list(trainer.optimizers)
        averaged = [*several(self._options.get("averaged", ())), *_averages(trainer)]
        if self.pruner is None or self._module is not pl_module:
            options = self._options | {"averaged": averaged}
            self.pruner = Pruner(pl_module, optimizers, self._schedule, **options)
            self._module = pl_module
        else:
            self.pruner.replace_optimizer(optimizers, averaged=averaged)
        if self._saved is not None and self._saved_for in (None, pl_module):
            self.pruner.load_state_dict(self._saved)
            self._saved = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the number of steps before this call of ``fit``."""
        self._seen, self._counted = trainer.global_step, False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch is not counted yet."""
        self._counted = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Count a step, if the optimizer made one, or an epoch with its last batch.

        After the epoch it is too late: checkpoints may be saved at the last batch, and validation
        empties the gradients that some scores and regrowth read.
        """
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        if self._unit == "epoch":
            self._count_epoch(trainer)
        elif stepped:
            self._step(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the sparsity of the epoch, and count it if its other batches were skipped."""
        if self._unit == "epoch":
            self._count_epoch(trainer)
            self._log(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop holding; the weights are still pruned."""
        if self.pruner is not None:
            self.pruner.remove()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Stop holding also after an error or Ctrl-C, at which Lightning skips `on_fit_end`."""
        self.on_fit_end(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The state that Lightning saves with a checkpoint."""
        if self._saved is not None and self._saved_for in (None, self._coming):
            return self._saved
        if self.pruner is None or self._coming is not self._module:
            return {}
        return self.pruner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state now, or when there are a model and optimizers."""
        if self.pruner is not None and self._coming is self._module:
            self.pruner.load_state_dict(state_dict)
        else:
            self._saved, self._saved_for = state_dict, self._coming

    def _count_epoch(self, trainer: Trainer) -> None:
        """Count an epoch once; one that ``max_steps`` cuts short is gone on with by a resume."""
        if trainer.is_last_batch and not self._counted and self.pruner is not None:
            self._counted = True
            self.pruner.step()

    def _step(self, module: LightningModule) -> None:
        if self.pruner is not None:
            self.pruner.step()
            self._log(module)

    def _log(self, module: LightningModule) -> None:
        if self.pruner is not None:
            steps = self._unit == "step"
            module.log("sparsity", self.pruner.sparsity, on_step=steps, on_epoch=not steps)


def _averages(trainer: Trainer) -> list[nn.Module]:
    """The averages of the module that Lightning's own callbacks make at the start of ``fit``."""
    kinds = tuple(getattr(callbacks, name) for name in _AVERAGING if hasattr(callbacks, name))
    every: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    own = (callback for callback in every if isinstance(callback, kinds))
    found = (getattr(callback, "_average_model", None) for callback in own)
    return [average for average in found if isinstance(average, nn.Module)]
