"""Measure what each layer costs: every layer is pruned alone, at several ratios."""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from secateurs._validation import check_ratio
from secateurs.criteria import Score, criterion_of
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.evaluation.batches import length, without_labels
from secateurs.evaluation.evaluation_loop import DENSE, SAVE_EVERY_SECONDS
from secateurs.evaluation.fingerprint import fingerprint
from secateurs.evaluation.grid import several
from secateurs.evaluation.kept_repairs import KeptRepairs
from secateurs.evaluation.layer_variants import LayerVariant, LayerVariants
from secateurs.evaluation.measured_model import (
    evaluating,
    inputs_for,
    moved_to,
    used_calibration,
)
from secateurs.evaluation.metrics import flips
from secateurs.evaluation.partial_results import Progress
from secateurs.evaluation.ranks import Ranks
from secateurs.evaluation.reusing_forward import forward_of
from secateurs.evaluation.runner import (
    IMAGE_SAMPLES,
    clear_saved,
    open_run,
    score_variants,
)
from secateurs.evaluation.sweep_rows import (
    Provenance,
    competing,
    is_named,
    joined,
    shared_columns,
)
from secateurs.parameters.layer_choice import LayerChoice, Layers, Patterns
from secateurs.pruning import set_aside
from secateurs.repair.single_layers import check_single_layer_steps
from secateurs.results import Results, Rows, SensitivityRow

RATIOS = (0.25, 0.5, 0.75, 0.9)


def sensitivity(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    ratios: float | Sequence[float] = RATIOS,
    labels: bool = True,
    p_bern: float = 1.0,
    granularity: str = "weight",
    score: Score = "magnitude",
    layers: Layers | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
    seed: int = 0,
    repair: str | Sequence[str] = (),
    calibration: Tensor | Iterable[Any] | None = None,
    provenance: Provenance | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
    save_every: float = SAVE_EVERY_SECONDS,
) -> Rows[SensitivityRow]:
    """Measure what it costs to prune each layer alone, at several ratios.

    The network that is scored is exactly that of `secateurs.global_prune` with ``include`` naming
    one layer. All layers and ratios are scored in one loop over ``loader``: each image is read and
    decoded once, and of the network only what follows a layer is computed again for each of its
    ratios. A model that is pruned already is measured from its original weights, and is
    afterwards as it was before.

    Each row has the accuracy, the images that flip either way against the dense network, and two
    costs that need no label: the divergence from the dense network's outputs, and the agreement
    with its classes. To choose ratios (`propose_ratios`), measure on images that score nothing:
    on unlabelled calibration images with ``labels=False``.

    With ``repair`` each layer is measured as that repair leaves it, while all others are those of
    the dense network. Ratios for a network that is going to be repaired are better chosen from
    this: how much of a layer can be made up for differs from how much it can do without. One pass
    of ``calibration`` serves all layers and ratios; what it gave to each is kept until the end, in
    ``output`` or, without it, in memory: about the model's size for each ratio.

    Args:
        model: as for `sweep`.
        loader: batches of (images, labels); with ``labels=False`` also of images alone.
        ratios: ratios of each layer's units that are candidates; 0, the dense network, is always
            measured.
        labels: False reads no label: the dense network's class stands for each.
        p_bern: probability of each candidate, above 0.
        granularity: see `secateurs.SelectionOptions`.
        score: see `secateurs.SelectionOptions`.
        layers: which layers are measured; see `secateurs.SelectionOptions`.
        include: likewise.
        exclude: likewise.
        seed: of random scores and draws, the same for each layer.
        repair: the steps of `secateurs.repair` that work layer by layer: ``"batchnorm"``,
            ``"channels"``, ``"reconstruct"``, ``"sparsegpt"``.
        calibration: images without labels, as for `secateurs.repair`, for ``repair`` and for scores
            that need inputs; none of them may be in ``loader``, unless ``labels=False``.
        provenance: names for the rows.
        device: where to run; the model is moved there. Default the device of the model.
        amp: whether to run under autocast.
        output: a folder for the rows; the same call continues an interrupted run there.
        overwrite: delete the results that ``output`` holds.
        progress: False shows no progress.
        save_every: seconds between two saves of the progress.

    Returns:
        One row for each layer and ratio, in the order of the model.

    Raises:
        InvalidArgumentError: an argument is wrong, ``output`` holds another run, or labels are not
            classes of the model.
        FailureError: the disk is full, an image is corrupt, or one image does not fit in memory.

    Example:
        >>> import torch, secateurs as sc
        >>> data = [(torch.randn(3, 4), i % 2) for i in range(8)]
        >>> loader = torch.utils.data.DataLoader(data, batch_size=4)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5),
        ...                             torch.nn.Linear(5, 2))
        >>> rows = sc.sensitivity(model, loader, ratios=[0.5, 0.9])
        >>> [(row.layer, row.p_prune, row.lost + row.won <= row.count) for row in rows]
        [('1.weight', 0.5, True), ('1.weight', 0.9, True), ('2.weight', 0.5, True),
         ('2.weight', 0.9, True)]
    """
    asked = _positive(ratios)
    if check_ratio("p_bern", p_bern) == 0:
        raise InvalidArgumentError(
            Argument("p_bern"), " is 0, so that no network would be pruned: write ",
            Argument("p_bern", 1.0),
        )  # fmt: skip
    choice = LayerChoice(layers, include, exclude)
    options: dict[str, Any] = {
        "p_prune": asked,
        "p_bern": p_bern,
        "granularity": granularity,
        "score": score,
        "seed": seed,
    }
    loader = loader if labels else without_labels(loader)
    steps = check_single_layer_steps((repair,) if isinstance(repair, str) else repair, granularity)
    criteria = [criterion_of(score)]
    images = used_calibration(calibration, steps, criteria)
    with ExitStack() as stack:
        stack.enter_context(set_aside(model))
        placed = moved_to(model, device)
        with inputs_for(model, images, criteria):
            networks = LayerVariants(model, choice, options)
        columns = shared_columns(model, provenance, placed, amp, loader, images)
        columns |= {"labels": "data" if labels else "dense", "repair": joined(steps)}
        results, before = None, dict[str, Progress]()
        config = _configuration(networks, columns, choice, asked) | {"images": length(loader)}
        if output is not None:
            results = stack.enter_context(Results(output, SensitivityRow))
            config[IMAGE_SAMPLES] = fingerprint(loader)
            wanted = [{"layer": o.layer, "p_prune": o.variant.p_prune} for o in networks.pruned]
            rows, before = open_run(
                results, config, networks.variants, length(loader), wanted, overwrite=overwrite
            )
            if rows:
                return Rows(rows)
        stack.enter_context(evaluating(model))
        if steps and images is not None:
            networks.repair(images, steps, KeptRepairs(results, config), show=progress)
        counts = score_variants(
            loader, networks.variants, networks.become,
            forward_of(model, placed, amp, lambda: networks.changed),
            results=results, ranks=Ranks(), before=before, save_every=save_every, show=progress,
            title="Pruning each layer",
            beside_dense=True if labels else "labels",
            calibration=images if labels else None,
        )  # fmt: skip
        rows = [_row(each, networks, columns, counts) for each in networks.pruned]
        if results is not None:
            results.add_all(rows)
            clear_saved(results)
        return Rows(rows)


def _positive(ratios: float | Sequence[float]) -> list[float]:
    found = sorted({check_ratio("ratios", ratio) for ratio in several("ratios", ratios)} - {0.0})
    if not found:
        raise InvalidArgumentError(
            Argument("ratios"), " holds nothing above 0: write ", Argument("ratios", [0.5, 0.9])
        )
    return found


def _configuration(
    networks: LayerVariants, columns: Mapping[str, Any], choice: LayerChoice, ratios: list[float]
) -> dict[str, Any]:
    """What must be the same for a run to continue."""
    same = {n: v for n, v in columns.items() if n not in ("batch_size", "versions")}
    dense = networks.variants[DENSE].variant
    named = is_named(dense.setting.criterion, columns)
    return same | {
        "command": "sensitivity",
        "ratios": ratios,
        "p_bern": [dense.p_bern],
        "granularity": dense.setting.granularity,
        "score": dense.setting.score_name,
        "seed": dense.seed,
        **competing(choice),
        "candidates": {} if named else networks.fingerprints(),
    }


def _row(
    each: LayerVariant,
    networks: LayerVariants,
    columns: Mapping[str, Any],
    counts: Mapping[str, Progress],
) -> SensitivityRow:
    setting, size = each.variant.setting, networks.size(each.layer)
    dense, found = counts[DENSE], counts[each.key]
    shared = dict(columns)
    if not setting.criterion.needs_gradients:
        shared["score_data"] = ""
    count = found.tally.count
    lost, won = flips("".join(dense.hits), "".join(found.hits))
    return SensitivityRow(
        **shared,
        layer=each.layer,
        granularity=setting.granularity,
        score=setting.score_name,
        p_prune=each.variant.p_prune,
        p_bern=each.variant.p_bern,
        seed=each.variant.seed,
        achieved=found.achieved,
        targets=size.targets,
        units=size.units,
        count=count,
        top1=found.tally.top1,
        dense_top1=dense.tally.top1,
        change=100 * (won - lost) / count,
        lost=lost,
        won=won,
        agreement=100 * found.tally.agreed / count,
        loss=found.tally.loss,
        dense_loss=dense.tally.loss,
        divergence=found.tally.divergence_sum / count,
        duration=round(found.seconds, 3),
    )
