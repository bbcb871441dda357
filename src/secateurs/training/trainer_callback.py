"""Pruning in the Trainer of transformers; needs ``pip install 'secateurs[hf]'``."""

import math
from pathlib import Path
from typing import Any, Literal, Unpack

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from secateurs._validation import check_choice
from secateurs.distributed.dtensor import full_of
from secateurs.errors import FailureError
from secateurs.training.pruner import Pruner
from secateurs.training.pruner_arguments import PrunerOptions
from secateurs.training.run_state import save_state
from secateurs.training.schedules import Schedule

_FILE = "pruner.pt"


class TrainerPruning(TrainerCallback):
    """Drives a `Pruner` in ``trainer.train``, saves it with the checkpoints, and logs sparsity.

    Each folder ``checkpoint-N`` gets a file ``pruner.pt``, from which ``resume_from_checkpoint``
    goes on. Sparsity is in every entry of ``trainer.state.log_history``. The Trainer calls its own
    loggers, such as TensorBoard's, before the callbacks that it was given; `add_to` makes this
    callback the first, so that they log sparsity too. With ``load_best_model_at_end`` the best
    checkpoint gets the masks of the end, also where it is from before the last pruning.

    Args:
        schedule: when to prune, see `Pruner`.
        unit: what the schedule counts: "step" (of the optimizer) or "epoch". An epoch is counted at
            its last step.
        **options: the other arguments of `Pruner`.

    Attributes:
        pruner: the `Pruner`; None before ``trainer.train``.

    Example:
        >>> from secateurs.training import OneShot, TrainerPruning
        >>> callback = TrainerPruning(OneShot(0.5), scope="layer")
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
        self._model: nn.Module | None = None
        self._counted = False

    def add_to(self, trainer: Trainer) -> None:
        """Add this callback to a Trainer, before all others."""
        trainer.callback_handler.callbacks.insert(0, self)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune, or go on with another optimizer or from a checkpoint."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if self.pruner is None or self._model is not model:
            self.pruner = Pruner(model, optimizer, self._schedule, **self._options)
            self._model = model
        else:
            self.pruner.replace_optimizer(optimizer)
        if state.global_step:
            self.pruner.load_state_dict(_saved(args, state))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count a step, or an epoch with its last step.

        After the epoch it is too late: a checkpoint may be saved at its last step, and the
        gradients that some scores and regrowth read are emptied.
        """
        if self._unit == "epoch":
            length = _steps_of_epoch(args, kwargs.get("train_dataloader"))
            if length and not (state.global_step + 1) % length:
                self._count_epoch()
        elif self.pruner is not None:
            self.pruner.step()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note that this epoch is not counted yet."""
        self._counted = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count an epoch that was cut short, or whose length nobody knew."""
        if self._unit == "epoch":
            self._count_epoch()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the masks beside the model and the optimizer."""
        if self.pruner is None:
            return
        whole = _gathered(self.pruner.state_dict())  # all ranks of a sharded model call together
        if state.is_world_process_zero:
            folder = _folder(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            save_state(folder / _FILE, whole)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the sparsity to what is logged."""
        if self.pruner is None:
            return
        for logs in (kwargs.get("logs"), state.log_history[-1] if state.log_history else None):
            if logs is not None:
                logs["sparsity"] = self.pruner.sparsity

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop holding; the weights are still pruned."""
        if self.pruner is not None:
            self.pruner.remove()

    def _count_epoch(self) -> None:
        if self.pruner is not None and not self._counted:
            self._counted = True
            self.pruner.step()


def _steps_of_epoch(args: TrainingArguments, batches: Any) -> int | None:
    """How many steps an epoch has, as the Trainer counts them; None if the data has no length."""
    try:
        count = len(batches)
    except TypeError:
        return None
    return max(math.ceil(count / args.gradient_accumulation_steps), 1)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _saved(args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    """The state that `TrainerPruning.on_save` wrote.

    The folder is not known for sure: a Trainer does not pass on from which one it resumes. The
    argument is what scripts hand on to it; the folder of the outputs may be that of another run.
    """
    usual = _folder(args, state)
    given = args.resume_from_checkpoint
    folders = [Path(given), usual] if given and _step(Path(given)) == state.global_step else [usual]
    for folder in folders:
        if (folder / _FILE).is_file():
            return torch.load(folder / _FILE, map_location="cpu", weights_only=True)
    raise FailureError(
        f"the training goes on at step {state.global_step}, but there is no {usual / _FILE}: "
        "set output_dir to the folder of the checkpoints, or resume_from_checkpoint in the "
        "TrainingArguments to the checkpoint"
    )


def _step(checkpoint: Path) -> int | None:
    """The step at which a checkpoint was saved; None where there is no checkpoint."""
    path = checkpoint / TRAINER_STATE_NAME
    return TrainerState.load_from_json(str(path)).global_step if path.is_file() else None


def _gathered(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: _gathered(value) for name, value in state.items()}
    return full_of(state.detach()) if isinstance(state, torch.Tensor) else state
