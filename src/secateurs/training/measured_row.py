"""A row of a retraining, filled in with what was measured."""

from dataclasses import replace

from torch import nn

from secateurs.masks._sparsity import sparsity
from secateurs.provenance import weights_sha256
from secateurs.results import RetrainRow
from secateurs.training.epochs import ImageScore
from secateurs.training.retrain_plan import RetrainPlan


def measured_row(
    row: RetrainRow, model: nn.Module, plan: RetrainPlan, found: ImageScore
) -> RetrainRow:
    """The row with the settings of its phase, the score and the sparsity of the network.

    Args:
        row: names the phase.
        model: the network.
        plan: of the run.
        found: its score.
    """
    options = plan.options
    counted = sparsity(
        model, layers=options.layers, include=options.include, exclude=options.exclude
    )
    settings = plan.settings("dense" if row.phase.endswith("dense") else "retrain")
    return replace(
        row,
        optimizer=settings.described,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        augment=settings.augment,
        train_batch_size=settings.batch_size,
        amp=settings.amp,
        count=found.count,
        correct=found.correct,
        top1=found.top1,
        loss=found.loss,
        achieved=counted.ratio,
        kept=counted.total - counted.zeros,
        prunable=counted.total,
        weights_sha256=weights_sha256(model),
    )
