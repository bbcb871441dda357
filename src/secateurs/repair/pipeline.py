"""`repair`: the steps in order; after an error the model is as it was."""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from secateurs._io.text import listed
from secateurs.errors import Argument, InvalidArgumentError, RepairWarning
from secateurs.gradient_pruning.modules import gradient_masks
from secateurs.originals.model_lock import changing
from secateurs.originals.module_state import original_of
from secateurs.outputs import device_of, dtype_of, logits_of, moved
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.parameters.model_contents import ModelContents
from secateurs.parameters.prunable_parameters import countable_targets
from secateurs.repair.calibration import calibrating
from secateurs.repair.changes import Changes, dense_values
from secateurs.repair.distillation import distill
from secateurs.repair.divergence import divergence, feature_keys, outputs_of
from secateurs.repair.layer_uses import LayerUses, layer_uses
from secateurs.repair.layerwise import PrunedTarget, refuse_fixed_masks, repair_layers
from secateurs.repair.repair_options import RepairKeywords, RepairOptions, passes_of
from secateurs.repair.repair_report import RepairReport, StepReport
from secateurs.selection.shown_keywords import shows


@shows(RepairOptions)
def repair(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    steps: Sequence[str] = ("batchnorm", "reconstruct"),
    *,
    dense: nn.Module | None = None,
    labelled: Iterable[Any] | None = None,
    **options: Unpack[RepairKeywords],
) -> RepairReport:
    """Win back accuracy that a pruned model lost, from a few images and without labels.

    What is pruned stays zero, except for ``"sparsegpt"``, which chooses other masks with the same
    count of zeros in each layer. `secateurs.restore` puts weights, biases and BatchNorm statistics
    back, bit for bit; pruning again starts from the originals too.

    The first four of these steps work layer by layer. Where they follow each other, one pass over
    the layers takes them all, each layer on the inputs that the repaired layers before it give:

    * ``"batchnorm"``: BatchNorm's running statistics are corrected for the pruned network's inputs.
    * ``"reconstruct"``: the kept weights of each layer are solved for, so that its outputs are
      closest to the dense network's; see `secateurs.repair.least_squares`.
    * ``"sparsegpt"``: the mask of each layer is chosen anew, with as many zeros as before, and the
      kept weights compensate for each weight that is pruned; see `secateurs.repair.obs_update`. If
      the masks keep N of M neighbours, the new ones do so too.
    * ``"channels"``: mean and scale of each output channel are those of the dense network.
    * ``"distill"``: a few hundred optimizer steps toward the dense network's outputs; see
      `secateurs.repair.distillation`.

    Args:
        model: the network, pruned; changed in place, its Parameters stay the same objects.
        images: what the model takes, (images, ...), or batches of it; of pairs, such as of images
            and labels, only the first is read.
        steps: names of steps, in order.
        dense: the dense network; default the originals that pruning keeps in the model.
        labelled: batches of images and labels, which are scored before and after each step for
            the reports; they change nothing else.
        **options: the fields of `secateurs.repair.RepairOptions`.

    Returns:
        What each step did, in order; it shows itself in a notebook, and has ``plot()``.

    Warns:
        RepairWarning: layers were left as they are, or the images are few.

    Raises:
        InvalidArgumentError: the model is not pruned, or only in its backward pass, or was trained
            since and ``dense`` is missing, or is divided over ranks; there are no images, or the
            model does not take them; a pruned layer is never called; ``"batchnorm"`` without
            BatchNorm; masks that are held; ``"distill"`` in float16. The model is as it was.
        FailureError: a value becomes NaN or infinite. The model is as it was.

    Example:
        >>> import torch, secateurs as sc
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(),
        ...                             torch.nn.Linear(16, 4))
        >>> images = torch.randn(64, 8)
        >>> (done,) = sc.repair(sc.global_prune(model, 0.5), images, ["reconstruct"])
        >>> done.loss[1] < done.loss[0], sc.sparsity(model).ratio
        (True, 0.5)
        >>> sc.sparsity(sc.restore(model)).ratio
        0.0
    """
    passes, how = passes_of(steps), RepairOptions.read(repair, options)
    with changing(model):  # no other thread prunes it meanwhile
        reports = _repair(model, images, passes, how, dense, labelled)
    left = sorted({name for report in reports for name in report.left})
    if left:
        warnings.warn(
            RepairWarning(
                f"{listed(left)} cannot be solved layer by layer (used several times, or by "
                "another function than a convolution or linear layer): 'distill' repairs them too"
            ),
            stacklevel=2,
        )
    return reports


def _repair(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    passes: Sequence[tuple[str, ...]],
    options: RepairOptions,
    dense: nn.Module | None,
    labelled: Iterable[Any] | None,
) -> RepairReport:
    weights = pruned_weights(model, dense)
    changes = Changes(dense_values(model, dense))
    with calibrating(model, images, options.batch_size) as batches:
        try:
            reports = _run(model, passes, options, weights, batches, changes, labelled)
            changes.keep()
        except BaseException:
            changes.undo()
            raise
    return reports


def _run(
    model: nn.Module,
    passes: Sequence[tuple[str, ...]],
    options: RepairOptions,
    weights: Sequence[PrunedTarget],
    batches: Sequence[Tensor],
    changes: Changes,
    labelled: Iterable[Any] | None,
) -> RepairReport:
    refuse_fixed_masks(weights, [step for steps in passes for step in steps])
    uses = layer_uses(model, batches[0][:1])
    _refuse_unseen(weights, uses)
    shown = _head(batches)
    wanted, now = outputs_of(model, shown, changes.dense), outputs_of(model, shown)
    reports: list[StepReport] = []
    score = _accuracy(model, labelled)
    for number, steps in enumerate(passes, start=1):
        start = time.perf_counter()
        own = options if len(passes) == 1 else _numbered(options, number)
        before, layers, left, iterations = now, {}, (), 0
        if steps == ("distill",):
            keys = feature_keys(uses, {id(one.target.parameter) for one in weights})
            how = own.for_images(batches[0])
            iterations = distill(model, batches, weights, keys, changes, how)
        else:
            layers, left = repair_layers(model, steps, batches, weights, uses, changes, own)
            weights = [
                replace(one, mask=changes.mask_of(one.target.parameter, one.mask))
                for one in weights
            ]
        seconds = time.perf_counter() - start
        now, scored = outputs_of(model, shown), score
        score = _accuracy(model, labelled)
        reports.append(
            StepReport(
                steps,
                seconds,
                (divergence(before, wanted), divergence(now, wanted)),
                (_agreement(before, wanted), _agreement(now, wanted)),
                layers,
                left,
                iterations,
                None if scored is None or score is None else (scored, score),
            )
        )
    return RepairReport(reports)


def _numbered(options: RepairOptions, number: int) -> RepairOptions:
    """Those of one of several passes, with a state file of its own."""
    path = None if options.state is None else Path(options.state)
    state = path and path.with_name(f"{path.stem}-{number}{path.suffix}")
    return replace(options, state=state)


def _refuse_unseen(weights: Sequence[PrunedTarget], uses: LayerUses) -> None:
    for one in weights:
        if id(one.target.parameter) not in uses.seen:
            raise InvalidArgumentError(
                f"{one.target.name} is pruned, but its layer is never called on these images: "
                "leave it as it is with ", Argument("exclude", [one.target.name]),
                ", or call the layer",
            )  # fmt: skip


def _head(batches: Sequence[Tensor]) -> list[Tensor]:
    """The images for the reports: the first 64 or somewhat more, since all would take as long."""
    count = next((i for i in range(1, len(batches)) if sum(map(len, batches[:i])) >= 64), None)
    return list(batches[:count])


def pruned_weights(model: nn.Module, dense: nn.Module | None) -> list[PrunedTarget]:
    """The pruned weights of a model, with their masks.

    Args:
        model: the network.
        dense: the dense network; if it is given, all prunable weights, and zeros are pruned.

    Raises:
        InvalidArgumentError: there are none.
    """
    contents = ModelContents(model)
    contents.refuse_ranks("repair", "gather the weights, and load them into one")
    if gradient_masks(model.modules()):
        raise InvalidArgumentError(
            "the model is under gradient pruning, whose outputs are those of the dense network: "
            "there is nothing to repair; use global_prune"
        )
    if dense is not None:
        targets = countable_targets(contents, LayerChoice())
        return [PrunedTarget(t, t.parameter.detach() != 0) for t in targets]
    found: list[PrunedTarget] = []
    for target in contents.targets.values():
        original = original_of(target.module, target.attribute)
        if original is None or target.parameter.dim() < 2 or not target.parameter.numel():
            continue
        mask = original.mask
        kept = target.parameter.detach() != 0
        found.append(PrunedTarget(target, kept if mask is None else mask.expand(kept.shape)))
    if not found:
        raise InvalidArgumentError(
            "the model is not pruned, or was made permanent: call global_prune(model, ...) first, "
            "or hand in the dense network with ",
            Argument("dense"),
        )
    return found


def _agreement(outputs: Tensor, wanted: Tensor) -> float:
    return float((outputs.argmax(-1) == wanted.argmax(-1)).double().mean())


@torch.no_grad()
def _accuracy(model: nn.Module, labelled: Iterable[Any] | None) -> float | None:
    if labelled is None:
        return None
    device, dtype = device_of(model), dtype_of(model)
    right = total = 0
    # An iterator would be exhausted when it is scored again, after minutes perhaps.
    for batch in () if isinstance(labelled, Iterator) else labelled:
        if not isinstance(batch, list | tuple) or len(batch) < 2:
            raise InvalidArgumentError(
                f"labelled must hold batches of images and labels, got {type(batch).__name__}: "
                "write DataLoader(dataset, batch_size=64), or [(images, labels)]"
            )
        images, labels = batch[0], batch[1]
        found = logits_of(model(moved(images, device, dtype)), of_tokens=True).argmax(-1)
        right += int((found == labels.to(device)).sum())
        total += labels.numel()
    if not total:
        raise InvalidArgumentError(
            "labelled holds no images (an iterator can be read only once): hand in a DataLoader "
            "or a list of batches"
        )
    return right / total
