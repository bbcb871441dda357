"""The columns of a retraining's row with the settings of a phase and the measured results."""

from typing import Any

from torch import nn

from secateurs.masks._sparsity import sparsity
from secateurs.provenance import weights_sha256
from secateurs.training.epochs import ImageScore
from secateurs.training.retrain_plan import RetrainPlan


def measured_columns(
    phase: str, model: nn.Module, plan: RetrainPlan, found: ImageScore
) -> dict[str, Any]:
    """The settings of a phase, the score and the sparsity of the network.

    Args:
        phase: the row's column of this name.
        model: the network.
        plan: of the run.
        found: the network's score.
    """
    counted = sparsity(model, **vars(plan.options.layer_choice))
    settings = plan.settings("dense" if phase.endswith("dense") else "retrain")
    return {
        "optimizer": settings.described,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "augment": settings.augment,
        "train_batch_size": settings.batch_size,
        "amp": settings.amp,
        "count": found.count,
        "correct": found.correct,
        "top1": found.top1,
        "loss": found.loss,
        "achieved": counted.ratio,
        "kept": counted.total - counted.zeros,
        "prunable": counted.total,
        "weights_sha256": weights_sha256(model),
    }
