"""What was measured of a retrained network: the columns of a row, and the rows of its layers."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateurs.masks._sparsity import sparsity
from secateurs.provenance import weights_sha256
from secateurs.results import LayerRow, RetrainRow
from secateurs.selection.selection_options import SelectionOptions
from secateurs.training.epochs import ImageScore
from secateurs.training.retrain_plan import RetrainPlan

_BINS = 48  # of a histogram


def measured_columns(
    phase: str, model: nn.Module, plan: RetrainPlan, found: ImageScore
) -> dict[str, Any]:
    """The settings of a phase of a run, and the score and the sparsity of the network."""
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


def kept_layers(
    model: nn.Module,
    dense: Mapping[str, torch.Tensor],
    row: RetrainRow,
    options: SelectionOptions,
) -> list[LayerRow]:
    """How many weights each layer kept, with their histograms.

    Args:
        model: the network, whose pruned weights are zero.
        dense: the weights that it had before any pruning, by name.
        row: a row of the run, which says how it was pruned.
        options: they say which of its weights compete.
    """
    weights = dict(model.named_parameters())
    names = ("model", "granularity", "scope", "score", "p_prune", "seed")
    asked: dict[str, Any] = {name: getattr(row, name) for name in names}
    return [
        LayerRow(
            **asked,
            prune_type="global",
            p_bern=1.0,
            layer=layer.name,
            total=layer.total,
            kept=layer.total - layer.zeros,
            **_histogram(dense.get(layer.name), weights[layer.name].detach()),
        )
        for layer in sparsity(model, **vars(options.layer_choice))
    ]


def _histogram(before: torch.Tensor | None, now: torch.Tensor) -> dict[str, Any]:
    """The columns of the histogram; none if the dense layer is missing or has only zeros."""
    if before is None or not before.numel():
        return {}
    before, now = before.float().abs().cpu(), now.float().abs().cpu()
    most = float(before.max())
    if not 0 < most < float("inf"):
        return {}
    kept = now[now > 0].clamp(max=most)
    counts = (torch.histc(values, _BINS, 0, most).long().tolist() for values in (before, kept))
    dense_counts, kept_counts = (";".join(map(str, each)) for each in counts)
    return {"most": most, "dense_counts": dense_counts, "kept_counts": kept_counts}
