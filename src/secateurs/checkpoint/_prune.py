"""Prune a checkpoint without building a model: two passes over its files, in bounded memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import torch

from secateurs._validation import check_path, make_generator
from secateurs.checkpoint.block_masks import Pruner, WeightGroup, decide
from secateurs.checkpoint.criterion_keys import CriterionKeys
from secateurs.checkpoint.destination import (
    find_destination,
    open_file,
    open_publication,
    publish,
)
from secateurs.checkpoint.file_blocks import Advance, Buffers, Weight
from secateurs.checkpoint.file_coverage import coverage_of_plan
from secateurs.checkpoint.file_histogram import SIZES
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.file_scores import Keys, MagnitudeKeys, RandomKeys, Scratch
from secateurs.checkpoint.pickled import check_pickled
from secateurs.checkpoint.pruning_plan import Plan, plan_pruning
from secateurs.checkpoint.rewrite import Written, write_safetensors, write_same
from secateurs.masks.bernoulli import Coins
from secateurs.parameters.coverage import warn_if_low
from secateurs.selection.histogram import Sizes
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.zoo.suffixes import suffix_of


@dataclass(frozen=True)
class Decision:
    """What will be pruned, to the unit.

    Attributes:
        groups: the weights that compete with each other, and where their candidates end.
        coins: decide which candidates are pruned, unless all or none are.
    """

    groups: tuple[WeightGroup, ...]
    coins: Coins | None


@dataclass(frozen=True)
class PrunedWeight:
    """What became of one tensor.

    Attributes:
        name: its name.
        dtype: as safetensors names it.
        shape: its shape.
        pruned: how many of its elements were pruned.
        total: how many it has.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    pruned: int
    total: int


@dataclass(frozen=True)
class Summary:
    """What was written.

    Attributes:
        folder: where.
        names: the files with tensors.
        weights: the tensors that competed.
        size: the bytes of these files.
        copied: what was copied along, by paths in the folder.
        were_links: what was a link, or one of several hard links, and is a file of its own now;
            what it led to has stayed.
    """

    folder: Path
    names: tuple[str, ...]
    weights: tuple[PrunedWeight, ...]
    size: int
    copied: tuple[str, ...] = ()
    were_links: tuple[str, ...] = ()


def decide_pruning(plan: Plan, advance: Advance | None = None, *, sizes: Sizes = SIZES) -> Decision:
    """The first pass: find where the candidates end, exactly.

    Args:
        plan: from `plan_pruning`.
        advance: told of every part that was read, in bytes.
        sizes: how much is looked at and kept at a time.

    Raises:
        InvalidArgumentError: a score is NaN; the tensor is named.
        FailureError: a file cannot be read, is damaged, or has changed since the plan was made.
    """
    for stored in plan.source.files:
        if stored.pickled:
            check_pickled(stored, advance)
    buffers = Buffers(advance, plan.source.identities)
    generator = make_generator(None, plan.options.seed)
    apart = [(w,) for w in plan.weights] if plan.options.scope == "layer" else [plan.weights]
    keys_of = _keys_for(plan, generator)
    groups = tuple(
        decide(weights, keys_of(weights), plan.p_prune, buffers, sizes) for weights in apart
    )
    check_unchanged(plan.source.identities)
    some = 0 < plan.p_bern < 1 and generator is not None
    return Decision(groups, Coins(plan.p_bern, generator) if some and generator else None)


def _keys_for(plan: Plan, generator: torch.Generator | None) -> Callable[[Sequence[Weight]], Keys]:
    """What makes the keys of those weights that compete with each other."""
    criterion = plan.options.criterion
    if criterion.name == "magnitude":
        scratch = Scratch()  # not one a group: there may be thousands
        return lambda weights: MagnitudeKeys(weights, scratch)
    if criterion.is_random and generator is not None:
        random = RandomKeys(plan.weights, generator)
        return lambda _: random
    keys = CriterionKeys(criterion, plan.source.identities)
    return lambda _: keys


def write_pruned(
    plan: Plan,
    decision: Decision,
    output: str | Path,
    *,
    compress: bool = False,
    advance: Advance | None = None,
) -> Summary:
    """The second pass: write the pruned files, all or none.

    Args:
        plan: from `plan_pruning`.
        decision: from `decide_pruning`.
        output: where to, see `prune_checkpoint`.
        compress: as for `prune_checkpoint`.
        advance: told of every part that was read, in bytes.

    Raises:
        InvalidArgumentError: ``output`` cannot be, for these files.
        FailureError: a file cannot be read or written, or the input has changed since the plan was
            made; nothing is written.
    """
    source = plan.source
    destination = find_destination(source, check_path("output", output), compress=compress)
    pruner = Pruner(decision.groups, decision.coins, idle=plan.p_bern == 0)
    buffers = Buffers(advance, source.identities)
    written: list[Written] = []
    with open_publication(source, destination) as publication:
        if not compress:
            publication.check_room(sum(file.size for file in source.files))
        for number, stored in enumerate(source.files):
            weights = [weight for weight in plan.weights if weight.path == stored.path]
            write = write_same
            if compress:
                from secateurs.checkpoint.compression import write_compressed

                write = write_compressed
            elif stored.pickled and suffix_of(destination.names[number]) == ".safetensors":
                write = write_safetensors
            with (
                open_file(publication, source, destination, number) as file,
                buffers.reader(stored.path) as reader,
            ):
                written.append(write(stored, weights, pruner, reader, file))
        publish(source, destination, publication, written)
    return Summary(
        destination.folder,
        destination.names,
        summarize(plan, pruner),
        sum(one.size for one in written),
        tuple(str(path) for path in destination.copied.files),
        destination.were_links,
    )


@shows(SelectionOptions)
def prune_checkpoint(
    source: str | Path,
    output: str | Path,
    p_prune: float,
    p_bern: float = 1.0,
    *,
    key: str | None = None,
    compress: bool = False,
    advance: Callable[[int], object] | None = None,
    **options: Unpack[SelectionKeywords],
) -> Summary:
    """Prune the weights in a file or a folder, however large, and write them to another.

    The outcome is that of `secateurs.global_prune` on the model with these weights, if the same
    tensors compete; ties go to the tensor that comes first in the file. Everything else, metadata
    and untouched tensors among it, is the same to the byte.

    A file holds no data, so ``score`` is a criterion that needs none: ``"magnitude"``,
    ``"random"``, or one of yours in `secateurs.criteria.CRITERIA`; then a whole tensor at a time is
    in memory. Which tensors compete is told by names and shapes, so ``layers`` takes fewer names
    and no types: see `secateurs.checkpoint.choice.choose`. Nor does a file say which convolutions
    are transposed: their filters are entries of the first dimension here.

    Args:
        source: a ``.safetensors`` file, a file of ``torch.save`` (``.pt``, ``.pth``, ``.bin``,
            ``.ckpt``, ``.th``, ``.pth.tar``), or a folder with such files as Hugging Face writes
            it, with an index or a single file. In the checkpoint of a training the weights are
            found by its structure (`secateurs.zoo.state_dicts.find_state`), and all else stays.
        output: a file of the same kind, or ``.safetensors``; with ``compress``
            ``.safetensors.zst``; a folder if the source is one. It may be the source.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive.
        p_bern: the probability with which a candidate is pruned.
        key: where the weights are in a checkpoint of a training that holds several sets of them:
            ``"state_dict_ema"``, ``"generator"``, ``"state.model"``.
        compress: write safetensors as zstd streams, ``.safetensors.zst``, which any zstd tool
            opens; `secateurs.load_checkpoint` and `decompress_checkpoint` read them.
        advance: told of every part that was read, in bytes.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        What was pruned, tensor by tensor.

    Warns:
        CoverageWarning: less than one half of the weights competes; see `secateurs.select`.

    Raises:
        InvalidArgumentError: something asked for cannot be, or a score is NaN.
        FailureError: a file is damaged, missing, or cannot be written; nothing has changed.

    Example:
        >>> import torch
        >>> from safetensors.torch import load_file, save_file
        >>> save_file({"fc.weight": torch.arange(1.0, 5.0).view(2, 2)}, "in.safetensors")
        >>> _ = prune_checkpoint("in.safetensors", "out.safetensors", 0.5)
        >>> load_file("out.safetensors")["fc.weight"]
        tensor([[0., 0.],
                [3., 4.]])
    """
    SelectionOptions.read(prune_checkpoint, options)  # so that an error names this function
    plan = plan_pruning(source, p_prune, p_bern, key=key, **options)
    # Refused before the first pass, if at all.
    find_destination(plan.source, check_path("output", output), compress=compress)
    warn_if_low(coverage_of_plan(plan), include=plan.options.include)
    decision = decide_pruning(plan, advance)
    return write_pruned(plan, decision, output, compress=compress, advance=advance)


def summarize(plan: Plan, pruner: Pruner) -> tuple[PrunedWeight, ...]:
    """What became of each tensor that competed."""
    entries = [weight.entry for weight in plan.weights]
    return tuple(
        PrunedWeight(e.name, e.dtype, e.shape, pruner.pruned[e.name], e.count) for e in entries
    )
