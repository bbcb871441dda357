"""Prune a checkpoint without building a model, in two passes over its files and bounded memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Unpack

import torch

from secateurs._validation import check_path, make_generator
from secateurs.checkpoint.block_masks import BlockPruner, WeightGroup, decide
from secateurs.checkpoint.contents import StoredFile
from secateurs.checkpoint.destination import find_destination, write_files
from secateurs.checkpoint.file_blocks import Advance, Buffers, Weight
from secateurs.checkpoint.file_histogram import SIZES
from secateurs.checkpoint.file_identity import check_unchanged
from secateurs.checkpoint.file_scores import (
    CriterionKeys,
    Keys,
    MagnitudeKeys,
    RandomKeys,
    magnitude_dtype,
)
from secateurs.checkpoint.pickled import check_pickled
from secateurs.checkpoint.pruning_plan import (
    PruningPlan,
    coverage_of_plan,
    plan_pruning,
    selection_of_file,
)
from secateurs.checkpoint.rewrite import Written, write_file
from secateurs.masks.bernoulli import Coins
from secateurs.parameters.coverage import warn_if_low
from secateurs.selection.histogram import Sizes
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows
from secateurs.zoo.suffixes import suffix_of


@dataclass(frozen=True)
class Decision:
    """Which units are candidates, and which candidates are pruned.

    Attributes:
        groups: the weights that compete with each other, and the threshold of their scores.
        coins: the Bernoulli draw of each candidate; None if all of them are pruned, or none.
    """

    groups: tuple[WeightGroup, ...]
    coins: Coins | None


@dataclass(frozen=True)
class PrunedWeight:
    """How much of one tensor was pruned.

    Attributes:
        name: its name.
        dtype: the name of its dtype in safetensors.
        shape: its shape.
        pruned: the number of its elements that were pruned.
        total: the number of its elements.
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
        folder: the folder of the files.
        names: the names of the files that hold tensors.
        weights: the tensors that competed.
        size: the size of the files that hold tensors, in bytes.
        copied: the other files that were copied, by their paths in the folder.
        were_links: the names that were symbolic links, or one of several hard links, and that are
            files of their own now. The files that they led to have not changed.
    """

    folder: Path
    names: tuple[str, ...]
    weights: tuple[PrunedWeight, ...]
    size: int
    copied: tuple[str, ...] = ()
    were_links: tuple[str, ...] = ()


def decide_pruning(
    plan: PruningPlan, advance: Advance | None = None, *, sizes: Sizes = SIZES
) -> Decision:
    """The first pass: find the threshold that separates exactly k candidates from the rest.

    Args:
        plan: from `plan_pruning`.
        advance: called with the number of bytes after each read.
        sizes: how many keys are counted and kept at a time.

    Raises:
        InvalidArgumentError: a score is NaN; the tensor is named.
        FailureError: a file cannot be read, is damaged, or has changed since the plan was made.
    """
    for stored in plan.source.files:
        if stored.pickled:
            check_pickled(stored, advance)
    buffers = Buffers(advance, plan.source.identities)
    generator = make_generator(None, plan.options.seed)
    groups = [(weight,) for weight in plan.weights] if plan.by_layer else [plan.weights]
    keys_of, scope = _keys_for(plan, generator), NOfM.read(plan.options.scope)
    decided = tuple(
        decide(group, keys_of(group), plan.ratio_of(group), buffers, sizes, scope)
        for group in groups
    )
    check_unchanged(plan.source.identities)
    if generator is None or plan.p_bern in (0, 1):
        return Decision(decided, None)
    return Decision(decided, Coins(plan.p_bern, generator))


def _keys_for(
    plan: PruningPlan, generator: torch.Generator | None
) -> Callable[[Sequence[Weight]], Keys]:
    """A function that returns the source of keys for weights that compete with each other."""
    criterion = plan.options.criterion
    if criterion.name == "magnitude":
        keys_of = cache(MagnitudeKeys)  # the scope "layer" may have thousands of groups
        return lambda weights: keys_of(magnitude_dtype(weights))
    if criterion.is_random and generator is not None:
        random = RandomKeys(plan.weights, generator)
        return lambda _: random
    keys = CriterionKeys(criterion, plan.source.identities)
    return lambda _: keys


def write_pruned(
    plan: PruningPlan,
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
        output: as for `prune_checkpoint`.
        compress: as for `prune_checkpoint`.
        advance: called with the number of bytes after each read.

    Raises:
        InvalidArgumentError: ``output`` does not fit these files.
        FailureError: a file cannot be read or written, or the input has changed since the plan was
            made; nothing is written.
    """
    source = plan.source
    destination = find_destination(source, check_path("output", output), compress=compress)
    pruner = BlockPruner(decision.groups, decision.coins, idle=plan.p_bern == 0)
    buffers = Buffers(advance, source.identities)

    def write_one(stored: StoredFile, name: str, file: FileIO) -> Written:
        weights = [weight for weight in plan.weights if weight.path == stored.path]
        with buffers.reader(stored.path) as reader:
            if compress:
                from secateurs.checkpoint.compression import write_compressed

                return write_compressed(stored, weights, pruner, reader, file)
            as_safetensors = suffix_of(name) == ".safetensors"
            return write_file(stored, weights, pruner, reader, file, as_safetensors=as_safetensors)

    needed = 0 if compress else sum(file.size for file in source.files)
    written = write_files(source, destination, write_one, needed=needed)
    entries = [weight.entry for weight in plan.weights]
    return Summary(
        destination.folder,
        destination.names,
        tuple(
            PrunedWeight(e.name, e.dtype, e.shape, pruner.pruned[e.name], e.count) for e in entries
        ),
        sum(one.size for one in written),
        tuple(str(path) for path in destination.copied.files),
        destination.were_links,
    )


@shows(SelectionOptions)
def prune_checkpoint(
    source: str | Path,
    output: str | Path,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    key: str | None = None,
    ratios: Mapping[str, float] | None = None,
    compress: bool = False,
    advance: Callable[[int], object] | None = None,
    **options: Unpack[SelectionKeywords],
) -> Summary:
    """Prune the weights in a file or a folder, however large, and write them to another.

    If the same tensors compete, the result is that of `secateurs.global_prune` on the model with
    these weights. Ties go to the tensor that comes first in the file. All other bytes stay the
    same, such as metadata and the tensors that do not compete.

    A file holds no data, so ``score`` is a criterion that needs none: ``"magnitude"``,
    ``"random"``, ``"lamp"``, or one of yours in `secateurs.criteria.CRITERIA`. For ``"lamp"`` and
    yours, memory holds a whole tensor at a time. The tensors that compete are chosen by their names
    and shapes, so ``layers`` takes fewer names and no types: see
    `secateurs.checkpoint.choice.choose`. A file does not say which convolutions are transposed, so
    outputs are always along the first dimension.

    Args:
        source: a ``.safetensors`` file, a file of ``torch.save`` (``.pt``, ``.pth``, ``.bin``,
            ``.ckpt``, ``.th``, ``.pth.tar``), or a folder with such files as Hugging Face writes
            it, with an index or a single file. In a training checkpoint the weights are found by
            its structure (`secateurs.zoo.state_dicts.find_state`), and all else stays.
        output: a file of the same kind, or ``.safetensors``; with ``compress``
            ``.safetensors.zst``; a folder if the source is one. It may be the source itself.
        p_prune: the ratio of units that are candidates, from 0 to 1 inclusive; with a ``scope`` N:M
            it may be left out; None with ``ratios``.
        p_bern: the probability with which a candidate is pruned.
        key: which weights to prune in a training checkpoint that holds several sets of them, such
            as ``"state_dict_ema"``, ``"generator"``, ``"state.model"``.
        ratios: the ratio of each tensor by its name, in place of ``p_prune``: each competes with
            itself alone. See `secateurs.repair.read_ratios`.
        compress: write safetensors as zstd streams, ``.safetensors.zst``, which any zstd tool
            opens; `secateurs.load_checkpoint` and `decompress_checkpoint` read them.
        advance: called with the number of bytes after each read.
        **options: the fields of `secateurs.SelectionOptions`.

    Returns:
        The files that were written, and how much of each tensor was pruned.

    Warns:
        CoverageWarning: less than one half of the weights competes; see `secateurs.select`.

    Raises:
        InvalidArgumentError: an argument is wrong or does not fit the file, or a score is NaN.
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
    selection_of_file(prune_checkpoint, options)  # so that an error names this function
    plan = plan_pruning(source, p_prune, p_bern, key=key, ratios=ratios, **options)
    # An output that does not fit is refused before the first pass.
    find_destination(plan.source, check_path("output", output), compress=compress)
    warn_if_low(coverage_of_plan(plan), include=plan.options.include)
    decision = decide_pruning(plan, advance)
    return write_pruned(plan, decision, output, compress=compress, advance=advance)
