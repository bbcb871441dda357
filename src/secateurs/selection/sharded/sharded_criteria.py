"""Scores of the units that lie on this rank."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.distributed.tensor import DTensor, Replicate

from secateurs._tensors.float_keys import Scores
from secateurs.criteria import Score, criterion_of
from secateurs.distributed.dtensor import is_part, whole_of
from secateurs.distributed.process_group import Team
from secateurs.distributed.shard import Array, Shard, shard_of
from secateurs.masks.granularity import Units
from secateurs.parameters.target import Target
from secateurs.selection.raw_scores import raw_scores

_BLOCK = 1 << 20


@dataclass(frozen=True)
class PartScores(Scores):
    """The scores of those units of one parameter that lie on this rank.

    Attributes:
        shard: where they lie among all units.
        owned: whether this rank counts them; of several copies, one rank's does.
        mesh: the parameter's, None if it is no DTensor.
        placements: of a tensor with one entry for each unit, beside the parameter.
        sum_to: the dtype of the scores, if ``values`` are parts of sums over all ranks.
    """

    shard: Shard
    owned: bool
    mesh: Any
    placements: tuple[Any, ...]
    sum_to: torch.dtype | None = None

    def wrap(self, local: torch.Tensor) -> torch.Tensor:
        """See one value for each of the units here as a part of those of all units."""
        if self.mesh is None:
            return local
        whole = torch.empty(self.shard.shape, device="meta")
        return DTensor.from_local(
            local,
            self.mesh,
            self.placements,
            run_check=False,
            shape=whole.shape,
            stride=whole.stride(),
        )


def score_parts(
    targets: Sequence[Target],
    units: Mapping[str, Units],
    score: Score,
    generator: torch.Generator | None,
    team: Team,
) -> list[Scores]:
    """Score the units that lie here, of every target; see `secateurs.selection.raw_scores`.

    Where ranks hold parts of one unit, their sums are added up, and each of them gets all units.
    """
    parts: list[PartScores] = []
    criterion = criterion_of(score)
    with team.together():
        for target in targets:
            if criterion.is_random and generator is not None and generator.device.type == "cpu":
                parts.append(_random(target, units[target.name], generator, team))
                continue
            # A function may fail on one rank alone, before the others wait in a collective below.
            with nullcontext() if criterion.is_built_in else team.together():
                raw = raw_scores(target, units[target.name], score, generator)
            score_part = _of_cut_units if _is_cut(target, units[target.name]) else _of_whole_units
            parts.append(score_part(raw, target, units[target.name], team))
    return [part if part.sum_to is None else _added_up(part, team) for part in parts]


def _random(target: Target, units: Units, generator: torch.Generator, team: Team) -> PartScores:
    """The numbers that one process would draw for all units; those of the units here are kept."""
    empty = Scores(target.name, torch.empty(units.unit, device="meta"), absolute=False)
    cut = _is_cut(target, units)
    part = (_of_cut_units if cut else _of_whole_units)(empty, target, units, team)
    drawn = np.empty(part.shard.local)
    flat, taken, total = drawn.reshape(-1), 0, torch.Size(units.unit).numel()
    for start in range(0, total, _BLOCK):
        stop = min(start + _BLOCK, total)
        numbers = torch.rand(stop - start, generator=generator, dtype=torch.float64).numpy()
        places = part.shard.places(taken, min(taken + _BLOCK, len(flat)))
        places = places[: np.searchsorted(places, stop)]
        flat[taken : taken + len(places)] = numbers[places - start]
        taken += len(places)
    return replace(part, values=torch.from_numpy(drawn).to(target.parameter.device), sum_to=None)


def _of_whole_units(raw: Scores, target: Target, units: Units, team: Team) -> PartScores:
    """Scores of units each of which lies on one rank, or on several that are alike."""
    parameter: Any = target.parameter
    shard = shard_of(parameter, target.name)
    lying = _every(units)
    mesh, placements, inner = None, (), units
    if is_part(parameter):
        mesh, placements = parameter.device_mesh, tuple(parameter.placements)
    if mesh is not None and units.view == units.shape:
        rows = zip(shard.rows, units.unit, units.shape, strict=True)
        lying = Shard(units.unit, tuple(r if u == size else r[:1] for r, u, size in rows))
        inner = Units(shard.local, shard.local, lying.local)
    if tuple(raw.values.shape) != units.shape:
        values = lying.of(whole_of(raw.values))
    else:
        values = _part(raw.values, parameter, shard)
        if units.pooled:
            values = inner.pool(values.abs() if raw.absolute else values)
    owned = team.owns(parameter)
    return PartScores(raw.name, values, raw.absolute, lying, owned, mesh, placements)


def _of_cut_units(raw: Scores, target: Target, units: Units, team: Team) -> PartScores:
    """Scores of units that lie on several ranks: sums of what lies here, or what was given."""
    parameter: Any = target.parameter
    sum_to = None
    if tuple(raw.values.shape) != units.shape:
        values = whole_of(raw.values)
    else:
        shard = shard_of(parameter, target.name)
        part = _part(raw.values, parameter, shard)
        sum_to = torch.float64 if part.dtype == torch.float64 else torch.float32
        values = torch.zeros(units.unit, dtype=torch.float64)
        if team.owns(parameter):
            _add_elements(values.numpy(), part.abs() if raw.absolute else part, units, shard)
        values = values.to(part.device)
    placements = tuple(Replicate() for _ in parameter.placements)
    return PartScores(
        raw.name,
        values,
        raw.absolute,
        _every(units),
        team.rank == 0,
        parameter.device_mesh,
        placements,
        sum_to,
    )


def _added_up(part: PartScores, team: Team) -> PartScores:
    # Added in float64 and rounded once, as in one process: see `Units.pool`.
    together = torch.from_numpy(team.sum(part.values.cpu().numpy()))
    return replace(part, values=together.to(part.values.device, part.sum_to), sum_to=None)


def _add_elements(sums: Array, values: torch.Tensor, units: Units, shard: Shard) -> None:
    """Add the elements here to the sums of their units."""
    if units.view == units.shape:
        pooled = values.sum(units.pooled, keepdim=True, dtype=torch.float64)
        rows = enumerate(shard.rows)
        index = [np.zeros(1, np.int64) if d in units.pooled else r for d, r in rows]
        sums[np.ix_(*index)] = pooled.cpu().numpy()
        return
    # Groups of a transposed convolution lie one after the other along its first dimension.
    kernels = values.flatten(2).sum(2, dtype=torch.float64).cpu().numpy()
    groups = shard.rows[0] // units.view[1]
    np.add.at(sums.reshape(units.view[0], units.view[2]), np.ix_(groups, shard.rows[1]), kernels)


def _every(units: Units) -> Shard:
    return Shard(units.unit, tuple(np.arange(size) for size in units.unit))


def _is_cut(target: Target, units: Units) -> bool:
    """Whether some units lie on several ranks."""
    parameter: Any = target.parameter
    if not is_part(parameter):
        return False
    sharded = [p.dim for p in parameter.placements if not p.is_replicate()]
    if units.view != units.shape:
        return bool(sharded)
    return any(units.unit[d] != units.shape[d] for d in sharded)


def _part(values: Any, parameter: Any, shard: Shard) -> torch.Tensor:
    """The part of element scores that lies here."""
    if not is_part(values):
        return shard.of(values)
    if tuple(values.placements) != tuple(parameter.placements):
        values = values.redistribute(parameter.device_mesh, parameter.placements)
    return values.to_local()
