"""How many weights each layer of a retrained network kept, with their histograms."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateurs.masks._sparsity import sparsity
from secateurs.results import LayerRow, RetrainRow
from secateurs.selection.selection_options import SelectionOptions

BINS = 48


def kept_layers(
    model: nn.Module,
    dense: Mapping[str, torch.Tensor],
    row: RetrainRow,
    options: SelectionOptions,
    *,
    bins: int = BINS,
) -> list[LayerRow]:
    """The rows of the layers of a network whose pruned weights are zero.

    Args:
        model: the network.
        dense: the weights that it had before any pruning, by name.
        row: a row of the run, which says how it was pruned.
        options: they say which of its weights compete.
        bins: bins of a histogram.
    """
    counted = sparsity(model, **vars(options.layer_choice))
    weights = dict(model.named_parameters())
    rows: list[LayerRow] = []
    for layer in counted:
        now, before = weights[layer.name].detach(), dense.get(layer.name)
        rows.append(
            LayerRow(
                model=row.model,
                prune_type="global",
                granularity=row.granularity,
                scope=row.scope,
                score=row.score,
                p_prune=row.p_prune,
                p_bern=1.0,
                seed=row.seed,
                layer=layer.name,
                total=layer.total,
                kept=layer.total - layer.zeros,
                **_histogram(before, now, bins),
            )
        )
    return rows


def _histogram(before: torch.Tensor | None, now: torch.Tensor, bins: int) -> dict[str, Any]:
    """The columns of the histogram; none if the dense layer is missing or has only zeros."""
    if before is None or not before.numel():
        return {}
    before, now = before.float().abs().cpu(), now.float().abs().cpu()
    most = float(before.max())
    if not 0 < most < float("inf"):
        return {}
    kept = now[now > 0].clamp(max=most)
    counts = (torch.histc(values, bins, 0, most).long().tolist() for values in (before, kept))
    dense_counts, kept_counts = (";".join(map(str, each)) for each in counts)
    return {"most": most, "dense_counts": dense_counts, "kept_counts": kept_counts}
