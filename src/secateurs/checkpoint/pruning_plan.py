"""Choose the tensors that compete, from headers and arguments alone, and count the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from secateurs._io.text import quoted
from secateurs._validation import check_path, check_ratio
from secateurs.checkpoint.choice import STATISTICS, choose
from secateurs.checkpoint.contents import FLOATS, Entry
from secateurs.checkpoint.file_blocks import Weight
from secateurs.checkpoint.quantized_weights import (
    Scales,
    as_if_dense,
    refuse_quantized,
    scales_among,
)
from secateurs.checkpoint.stored_units import Layouts
from secateurs.checkpoint.weight_files import StoredCheckpoint, find_checkpoint
from secateurs.criteria import check_data_free
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.parameters.coverage import QUANTISED, Coverage, grouped
from secateurs.parameters.layer_choice import Patterns, pattern_list
from secateurs.parameters.layer_names import is_apart
from secateurs.parameters.patterns import name_matches
from secateurs.selection.layer_counts import ratios_alone, ratios_by_parameter
from secateurs.selection.neighbours import refuse_indivisible
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import (
    SelectionKeywords,
    SelectionOptions,
    check_randomness,
)
from secateurs.selection.shown_keywords import shows

# The dtypes of quantised weights in files; larger integers are indices.
_INTEGERS = ("I8", "U8", "I32")


@dataclass(frozen=True)
class PruningPlan:
    """The tensors that compete; nothing but headers has been read.

    Attributes:
        source: the files.
        weights: the tensors that compete, in the order in which ties are broken.
        p_prune: the ratio of units that are candidates.
        p_bern: the probability with which a candidate is pruned.
        options: the options of the selection.
        notes: assumptions about the file that a person should know.
        ratios: the ratio of each tensor by its name, in place of ``p_prune``; None without.
    """

    source: StoredCheckpoint
    weights: tuple[Weight, ...]
    p_prune: float
    p_bern: float
    options: SelectionOptions
    notes: tuple[str, ...] = ()
    ratios: Mapping[str, float] | None = None

    @property
    def by_layer(self) -> bool:
        """Whether the units of each tensor compete among themselves."""
        return self.ratios is not None or self.options.scope != "global"

    def ratio_of(self, group: Sequence[Weight]) -> float:
        """The ratio of units that are candidates, among tensors that compete with each other."""
        return self.p_prune if self.ratios is None else self.ratios[group[0].entry.name]

    @property
    def untouched(self) -> list[Entry]:
        """The tensors that do not compete."""
        chosen = {weight.entry.name for weight in self.weights}
        return [entry for entry in self.source.entries if entry.name not in chosen]

    @property
    def work(self) -> int:
        """The number of bytes that will be read, if the first guess of the threshold is right."""
        counted = sum(weight.entry.nbytes for weight in self.weights)
        written = sum(file.size for file in self.source.files)
        checked = sum(file.size for file in self.source.files if file.pickled)
        return written + checked + (0 if self.options.criterion.is_random else counted)


@shows(SelectionOptions)
def plan_pruning(
    source: str | Path,
    p_prune: float | None = None,
    p_bern: float = 1.0,
    *,
    key: str | None = None,
    ratios: Mapping[str, float] | None = None,
    **options: Unpack[SelectionKeywords],
) -> PruningPlan:
    """Check the arguments and the headers, and choose the tensors; see `prune_checkpoint`.

    Args:
        source: as for `prune_checkpoint`.
        p_prune: as for `prune_checkpoint`.
        p_bern: as for `prune_checkpoint`.
        key: as for `prune_checkpoint`.
        ratios: as for `prune_checkpoint`.
        **options: the fields of `secateurs.SelectionOptions`.

    Raises:
        InvalidArgumentError: an argument is wrong or does not fit the file.
        FailureError: a file is damaged or missing.
    """
    given = selection_of_file(plan_pruning, options)
    if ratios is None:
        p_prune = given.ratio(p_prune)
    elif p_prune is not None or given.scope != "global":
        raise ratios_alone()
    check_randomness(given, check_ratio("p_bern", p_bern))
    found = find_checkpoint(check_path("source", source), key=key)
    for file in found.files:
        if file.compressed:
            raise InvalidArgumentError(
                f"{file.path} is compressed: ",
                Advice("call decompress_checkpoint", "run secateurs prune --decompress"),
                " on it first",
            )
    weights, notes = _competing(found, given)
    _refuse_unnamed(found, weights)
    _refuse_overlaps(found, weights)
    if ratios is not None:
        own = {name: weight.entry.name for weight in weights for name in weight.entry.names}
        ratios = ratios_by_parameter(own, ratios)
    return PruningPlan(found, weights, p_prune or 0.0, p_bern, given, notes, ratios)


def selection_of_file(
    function: Callable[..., object], options: SelectionKeywords
) -> SelectionOptions:
    """The options of a selection among stored weights, which come without data to score them by.

    Args:
        function: the function that was called, for the error.
        options: its keyword arguments.

    Raises:
        InvalidArgumentError: one is unknown or wrong, or the score needs data.
    """
    check_data_free(options.get("score", "magnitude"))
    return SelectionOptions.read(function, options)


def _competing(
    found: StoredCheckpoint, given: SelectionOptions
) -> tuple[tuple[Weight, ...], tuple[str, ...]]:
    """The tensors that compete, in order, and what a person should know about them."""
    dense, integers = as_if_dense(found.entries)
    chosen = choose(dense, layers=given.layers, include=given.include, exclude=given.exclude)
    refuse_quantized(chosen, integers)
    names = {entry.name for entry in chosen}
    if given.include is None:
        names -= scales_among(found.entries)  # layers="all" means weights
    layouts = Layouts(found.entries)
    tensors = {n: (file.path, e) for file in found.files for e in file.entries for n in e.names}
    scales = Scales(tensors, (found.folder or found.path.parent) / "config.json")
    weights = tuple(
        Weight(
            file.path,
            entry,
            *layouts.unit(entry, given.granularity),
            scales.of(entry, outputs_last=layouts.outputs_last(entry))
            if given.score == "magnitude"
            else None,
        )
        for file in found.files
        for entry in file.entries
        if entry.name in names and entry.count
    )
    neighbours = NOfM.read(given.scope)
    if neighbours is not None:
        weights = _in_groups(weights, layouts, neighbours, given)
    return weights, _notes([weight.entry for weight in weights], layouts, given)


def _in_groups(
    weights: Sequence[Weight], layouts: Layouts, scope: NOfM, options: SelectionOptions
) -> tuple[Weight, ...]:
    """Weights that are read in blocks of whole groups of M inputs.

    Raises:
        InvalidArgumentError: the inputs of one do not fall into such groups, or are too far apart.
    """
    inputs = {weight.entry.name: layouts.inputs(weight.entry) for weight in weights}
    refuse_indivisible({name: count for name, (count, _) in inputs.items()}, scope, options.exclude)
    made: list[Weight] = []
    for weight in weights:
        _, spacing = inputs[weight.entry.name]
        group = scope.of * spacing
        if group > weight.block:
            raise InvalidArgumentError(
                f"{weight.entry.name} is stored as (in, out) with {spacing:,} outputs, of which at "
                f"most {weight.block // scope.of:,} can be read at once for ",
                Argument("scope", options.scope), ": load it and call global_prune, or write ",
                Argument("exclude", weight.entry.name),
            )  # fmt: skip
        made.append(replace(weight, block=weight.block // group * group, spacing=spacing))
    return tuple(made)


def _notes(chosen: Sequence[Entry], layouts: Layouts, options: SelectionOptions) -> tuple[str, ...]:
    found: list[str] = []
    apart = [entry.name for entry in chosen if is_apart(entry.name)]
    if options.scope == "layer" and apart:
        found.append(
            f"each expert ({apart[0]}, ...) is a separate layer, as in the file; in a model that "
            "stacks them in one parameter, global_prune treats them as one layer"
        )
    guessed = [entry.name for entry in chosen if layouts.is_guessed(entry)]
    if (options.granularity == "filter" or NOfM.read(options.scope)) and guessed:
        found.append(
            f"nothing shows which dimension the outputs of {len(guessed):,} stacks of experts are "
            f"({guessed[0]}, ...): taken for (experts, out, in)"
        )
    return tuple(found)


def _refuse_unnamed(source: StoredCheckpoint, weights: Sequence[Weight]) -> None:
    """Refuse weights that the index does not name: loaders differ in whether they load them."""
    if source.index is None or source.content is None:
        return
    weight_map = source.content["weight_map"]
    for weight in weights:
        if not any(name in weight_map for name in weight.entry.names):
            name = weight.entry.name
            raise InvalidArgumentError(
                f"{quoted(name)} is in {weight.path.name} and {source.index.name} does not name "
                "it: add it to the index, or write ",
                Argument("exclude", name),
                " to copy it as it is",
            )


def _refuse_overlaps(source: StoredCheckpoint, weights: Sequence[Weight]) -> None:
    """Refuse a weight that shares some of its bytes with another tensor."""
    chosen = {weight.entry.name for weight in weights}
    for file in source.files:
        last: Entry | None = None
        for entry in sorted((e for e in file.entries if e.nbytes), key=lambda e: (e.start, e.stop)):
            if last is not None and entry.start < last.stop and chosen & {entry.name, last.name}:
                raise InvalidArgumentError(
                    f"{last.name} and {entry.name} share part of their memory in {file.path}, so "
                    "one cannot be pruned without the other: save clones of them, or exclude both"
                )
            if last is None or entry.stop > last.stop:
                last = entry


def coverage_of_plan(plan: PruningPlan) -> Coverage:
    """Count the weights that compete and those that do not.

    Weights are the elements of all floating-point tensors except running statistics, and of
    matrices of small integers, as quantisers store them. Weights that ``exclude`` matches, or that
    ``include`` does not match, are counted as left out on purpose.
    """
    include, exclude = plan.options.include, plan.options.exclude
    scales = scales_among(plan.source.entries)
    floats: dict[str, int] = {}
    integers: dict[str, int] = {}
    known = 0
    for entry in plan.untouched:
        packed = entry.dtype in _INTEGERS and len(entry.shape) > 1
        is_weight = entry.dtype in FLOATS and entry.name.rpartition(".")[2] not in STATISTICS
        if not is_weight and not packed:
            continue
        picked = include is None or _is_named(entry, include)
        if not picked or entry.name in scales or _is_named(entry, exclude):
            known += entry.count
        else:
            (floats if is_weight else integers)[entry.name] = entry.count
    chosen = [name for weight in plan.weights for name in weight.entry.names]
    left = [*grouped(floats, chosen), *grouped(integers, chosen, barrier=QUANTISED)]
    left.sort(key=lambda one: -one.elements)
    competing = sum(weight.entry.count for weight in plan.weights)
    total = competing + known + sum(one.elements for one in left)
    return Coverage(competing, total, tuple(left), known=known)


def _is_named(entry: Entry, patterns: Patterns | None) -> bool:
    """Whether a pattern of ``include`` or ``exclude`` matches a tensor."""
    globs = [one for one in pattern_list("", patterns or ()) if isinstance(one, str)]
    return any(name_matches(name, glob) for name in entry.names for glob in globs)
