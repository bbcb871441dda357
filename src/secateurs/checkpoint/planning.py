"""What will be pruned, told from headers and arguments alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from secateurs._checks import check_choice, check_ratio, make_generator
from secateurs._untrusted import quoted, read_json_file
from secateurs.checkpoint.choice import choose
from secateurs.checkpoint.compressed import is_compressed
from secateurs.checkpoint.finding import Source, find_checkpoint
from secateurs.checkpoint.quantized import as_if_dense, find_scale, refuse_quantized, scales_of
from secateurs.checkpoint.reading import Weight
from secateurs.checkpoint.rewriting import overlapping
from secateurs.checkpoint.stored import Entry
from secateurs.errors import InvalidArgumentError
from secateurs.granularity import GRANULARITIES
from secateurs.selecting import SCOPES

SCORES = ("magnitude", "random")
Names = str | Sequence[str]


@dataclass(frozen=True)
class Plan:
    """What will be pruned; nothing but headers has been read.

    Attributes:
        source: the files.
        weights: the tensors that compete, in the order in which ties are broken.
        p_prune: the ratio of units that are candidates.
        p_bern: the probability with which a candidate is pruned.
        scope: ``global`` or ``layer``.
        score: ``magnitude`` or ``random``.
        seed: of random scores and draws.
    """

    source: Source
    weights: tuple[Weight, ...]
    p_prune: float
    p_bern: float
    scope: str
    score: str
    seed: int | None

    @property
    def untouched(self) -> list[Entry]:
        """The tensors that stay as they are."""
        chosen = {weight.entry.name for weight in self.weights}
        return [e for file in self.source.files for e in file.entries if e.name not in chosen]

    @property
    def work(self) -> int:
        """How many bytes will be read, if the first guess of the threshold is right."""
        counted = sum(weight.entry.nbytes for weight in self.weights)
        written = sum(file.size for file in self.source.files)
        checked = sum(file.size for file in self.source.files if file.pickled)
        return written + checked + (counted if self.score == "magnitude" else 0)


def plan_pruning(
    source: str | Path,
    p_prune: float,
    p_bern: float = 1.0,
    *,
    granularity: str = "weight",
    scope: str = "global",
    score: str = "magnitude",
    layers: Names | None = None,
    include: Names | None = None,
    exclude: Names | None = None,
    seed: int | None = None,
    key: str | None = None,
) -> Plan:
    """Check the arguments and the headers, and choose the tensors; see `prune_checkpoint`.

    Raises:
        InvalidArgumentError: something asked for cannot be.
        FailureError: a file is damaged or missing.
    """
    p_prune, p_bern = check_ratio("p_prune", p_prune), check_ratio("p_bern", p_bern)
    granularity = check_choice("granularity", granularity, GRANULARITIES)
    scope, score = check_choice("scope", scope, SCOPES), check_choice("score", score, SCORES)
    needed = f"p_bern={p_bern:g}" if 0 < p_bern < 1 else None
    make_generator(None, seed, needed_for="score='random'" if score == "random" else needed)
    found = find_checkpoint(Path(source).expanduser(), key=key)
    for file in found.files:
        if is_compressed(file):
            raise InvalidArgumentError(
                f"{file.path} is compressed: run secateurs prune --decompress on it first"
            )
    entries = [(file.path, entry) for file in found.files for entry in file.entries]
    dense, changed = as_if_dense([entry for _, entry in entries])
    chosen = choose(dense, layers=layers, include=include, exclude=exclude)
    refuse_quantized(chosen, changed)
    names = {entry.name for entry in chosen}
    if include is None:
        names -= scales_of([entry for _, entry in entries])  # layers="all" means weights
    everything = {name: place for place in entries for name in place[1].names}
    config = (found.folder or found.path.parent) / "config.json"
    weights = tuple(
        Weight(
            path,
            entry,
            _unit_size(entry, granularity),
            find_scale((path, entry), everything, lambda: _block_size(config))
            if score == "magnitude"
            else None,
        )
        for path, entry in entries
        if entry.name in names and entry.count
    )
    _refuse_unnamed(found, weights)
    _refuse_overlaps(found, weights)
    return Plan(found, weights, p_prune, p_bern, scope, score, seed)


def _unit_size(entry: Entry, granularity: str) -> int:
    """Elements of one unit; they lie side by side."""
    if granularity == "weight" or len(entry.shape) < 2:
        return 1
    return torch.Size(entry.shape[2 if granularity == "kernel" else 1 :]).numel()


def _block_size(config: Path) -> list[int] | None:
    """For how large blocks of quantised weights a scale holds, if the configuration tells it."""
    if not config.is_file():
        return None
    quantization = read_json_file(config).get("quantization_config")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    if not isinstance(block, list) or len(block) != 2:
        return None
    return block if all(type(size) is int and size > 0 for size in block) else None


def _refuse_unnamed(source: Source, weights: Sequence[Weight]) -> None:
    """Loaders differ in whether they load what the index does not name: it would stay dense."""
    if source.index is None or source.content is None:
        return
    places = source.content["weight_map"]
    for weight in weights:
        if not any(name in places for name in weight.entry.names):
            name = weight.entry.name
            raise InvalidArgumentError(
                f"{quoted(name)} lies in {weight.path.name} and {source.index.name} does not name "
                f"it: add it to the index, or write exclude={quoted(name)} to copy it as it is"
            )


def _refuse_overlaps(source: Source, weights: Sequence[Weight]) -> None:
    for file in source.files:
        shared = overlapping([w for w in weights if w.path == file.path], file.entries)
        if shared is not None:
            raise InvalidArgumentError(
                f"{shared[0]} and {shared[1]} share part of their memory in {file.path}, so one "
                "cannot be pruned without the other: save clones of them, or exclude both"
            )
