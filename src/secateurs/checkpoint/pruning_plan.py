"""Choose the tensors that compete, from headers and arguments alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from secateurs._io.json_objects import read_object_file
from secateurs._io.text import quoted
from secateurs._tensors.quantization_scales import scaling_names
from secateurs._validation import check_choice, check_path, check_ratio, make_generator
from secateurs.checkpoint.choice import choose
from secateurs.checkpoint.contents import Entry, StoredFile
from secateurs.checkpoint.file_blocks import Weight
from secateurs.checkpoint.quantized_weights import (
    StoredScale,
    as_if_dense,
    find_scale,
    refuse_quantized,
    scales_among,
)
from secateurs.checkpoint.rewrite import overlapping
from secateurs.checkpoint.stored_units import Layouts
from secateurs.checkpoint.weight_files import StoredCheckpoint, find_checkpoint
from secateurs.criteria import score_names
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.parameters.layer_names import is_apart
from secateurs.selection.layer_counts import ratios_alone, ratios_by_parameter
from secateurs.selection.neighbours import refuse_indivisible
from secateurs.selection.scopes import NOfM
from secateurs.selection.selection_options import SelectionKeywords, SelectionOptions
from secateurs.selection.shown_keywords import shows


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
        return [e for file in self.source.files for e in file.entries if e.name not in chosen]

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
    given = SelectionOptions.read(plan_pruning, options)
    if ratios is None:
        p_prune = given.ratio(p_prune)
    elif p_prune is not None or given.scope != "global":
        raise ratios_alone()
    _check_randomness(given, check_ratio("p_bern", p_bern))
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


def _check_randomness(given: SelectionOptions, p_bern: float) -> None:
    """Refuse a score that needs data, and random numbers without a seed."""
    check_choice("score", given.score, score_names(data_free=True))
    random = Argument("p_bern", p_bern) if 0 < p_bern < 1 else None
    random = Argument("score", given.score) if given.criterion.is_random else random
    make_generator(None, given.seed, needed_for=random)


def _competing(
    found: StoredCheckpoint, given: SelectionOptions
) -> tuple[tuple[Weight, ...], tuple[str, ...]]:
    """The tensors that compete, in order, and what a person should know about them."""
    named = [entry for file in found.files for entry in _named(file)]
    dense, integers = as_if_dense(named)
    chosen = choose(dense, layers=given.layers, include=given.include, exclude=given.exclude)
    refuse_quantized(chosen, integers)
    names = {entry.name for entry in chosen}
    if given.include is None:
        names -= scales_among(named)  # layers="all" means weights
    layouts = Layouts(named)
    scales = _Scales(found, layouts)
    weights = tuple(
        Weight(
            file.path,
            entry,
            *layouts.unit(entry, given.granularity),
            scales.of(file.path, entry) if given.score == "magnitude" else None,
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


def _named(file: StoredFile) -> list[Entry]:
    """The tensors of a file with all their names, including those that only its metadata has."""
    held = {entry.name for entry in file.entries}
    aliases: dict[str, list[str]] = {}
    for alias, name in (file.metadata or {}).items():
        if name in held and alias not in held:  # a tied tensor, by safetensors.torch.save_model
            aliases.setdefault(name, []).append(alias)
    return [replace(e, aliases=(*e.aliases, *aliases.get(e.name, ()))) for e in file.entries]


class _Scales:
    """Finds the scale of each weight, if it is quantised."""

    def __init__(self, source: StoredCheckpoint, layouts: Layouts):
        self._layouts = layouts
        self._everything = {
            name: (file.path, entry)
            for file in source.files
            for entry in _named(file)
            for name in entry.names
        }
        self._scaling = scaling_names(self._everything)
        self._config = (source.folder or source.path.parent) / "config.json"

    def of(self, path: Path, entry: Entry) -> StoredScale | None:
        last = self._layouts.outputs_last(entry)
        return find_scale(
            (path, entry), self._everything, self._scaling, self._block_size, outputs_last=last
        )

    def _block_size(self) -> list[int] | None:
        """The size of the blocks that share a scale, if the configuration has it."""
        if not self._config.is_file():
            return None
        quantization = read_object_file(self._config).get("quantization_config")
        block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
        if not isinstance(block, list) or len(block) != 2:
            return None
        return block if all(type(size) is int and size > 0 for size in block) else None


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
    for file in source.files:
        shared = overlapping([w for w in weights if w.path == file.path], file.entries)
        if shared is not None:
            raise InvalidArgumentError(
                f"{shared[0]} and {shared[1]} share part of their memory in {file.path}, so one "
                "cannot be pruned without the other: save clones of them, or exclude both"
            )
