"""Pruning in Lightning's Trainer; needs ``pip install 'secateurs[lightning]'``."""

from typing import Any, Literal, Unpack

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from secateurs._validation import check_choice
from secateurs.training.pruner import Pruner
from secateurs.training.pruner_arguments import PrunerOptions
from secateurs.training.schedules import Schedule


class LightningPruning(Callback):
    """Drives a `Pruner` in ``trainer.fit``, saves it with the checkpoints, and logs sparsity.

    A second call of ``fit`` goes on with the schedule; masks are held under its new optimizers.
    With another module it begins anew.
    Lightning's checkpoints contain the masks and the number of steps, so that
    ``fit(ckpt_path=...)`` goes on, also with a new callback. The logged name is ``sparsity``.

    Args:
        schedule: when to prune, see `Pruner`.
        unit: what the schedule counts: "step" (of the optimizer, which may accumulate several
            batches) or "epoch".
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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note whose state a checkpoint has: Lightning loads it next, and does not say."""
        self._coming = pl_module

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune, or go on with the optimizers of this call."""
        optimizers = list(trainer.optimizers)
        if self.pruner is None or self._module is not pl_module:
            self.pruner = Pruner(pl_module, optimizers, self._schedule, **self._options)
            self._module = pl_module
        else:
            self.pruner.replace_optimizer(optimizers)
        if self._saved is not None and self._saved_for in (None, pl_module):
            self.pruner.load_state_dict(self._saved)
            self._saved = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the number of steps before this call of ``fit``."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Count a step, if the optimizer made one."""
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        if stepped and self._unit == "step":
            self._step(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count an epoch."""
        if self._unit == "epoch":
            self._step(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop holding; the weights are still pruned."""
        if self.pruner is not None:
            self.pruner.remove()

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

    def _step(self, module: LightningModule) -> None:
        if self.pruner is None:
            return
        self.pruner.step()
        steps = self._unit == "step"
        module.log("sparsity", self.pruner.sparsity, on_step=steps, on_epoch=not steps)
