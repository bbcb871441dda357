"""Result rows of a sweep, and the configuration by which it is recognised."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor, nn

from secateurs.criteria import Criterion
from secateurs.evaluation.batches import length
from secateurs.evaluation.grid import Cell, Grid
from secateurs.evaluation.partial_results import Progress
from secateurs.evaluation.pruned_model import Size, Variants
from secateurs.masks._sparsity import Sparsity
from secateurs.parameters.layer_choice import LayerChoice
from secateurs.provenance import device_name, versions, weights_sha256
from secateurs.repair.repaired_values import calibration_sha256
from secateurs.results import LayerRow, Row, wilson_interval
from secateurs.selection.selection_options import SelectionOptions


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What is measured, as the rows name it.

    Attributes:
        model: name of the model; default the name of its class.
        weights: name of its weights.
        data: name of the data set.
        split: name of the split.
        img_size: side of the input in pixels; 0 if unknown.
        crop_pct: share of the image that the crop keeps; 0.0 if unknown.
        interpolation: filter of the resize.
        preprocess: the whole preprocessing in one line.
        score_data: the images whose gradients the scores use, in words.
        calibration: name of the calibration images.
    """

    model: str = ""
    weights: str = ""
    data: str = ""
    split: str = ""
    img_size: int = 0
    crop_pct: float = 0.0
    interpolation: str = ""
    preprocess: str = ""
    score_data: str = ""
    calibration: str = field(default="", repr=False)


def shared_columns(
    model: nn.Module,
    provenance: Provenance | None,
    device: torch.device,
    amp: bool,
    loader: Iterable[Any],
    calibration: Tensor | None = None,
) -> dict[str, Any]:
    """The columns that all rows of a sweep share; of rows without calibration it is taken out."""
    named = provenance or Provenance()
    floats = [p for p in model.parameters() if p.is_floating_point()]
    return asdict(named) | {
        "model": named.model or type(model).__name__,
        "weights_sha256": weights_sha256(model),
        "param_count": round(sum(p.numel() for p in model.parameters()) / 1e6, 6),
        "dtype": str(floats[0].dtype).removeprefix("torch.") if floats else "",
        "device": device_name(device),
        "amp": amp,
        "batch_size": getattr(loader, "batch_size", None) or 0,
        "versions": versions(),
        "calibration_sha256": "" if calibration is None else calibration_sha256(calibration),
        "calibration_count": 0 if calibration is None else len(calibration),
    }


def columns_of(options: SelectionOptions) -> dict[str, Any]:
    """The columns that say how units were selected; of random scores the seed is another."""
    return {
        "granularity": options.granularity,
        "scope": options.scope,
        "score": options.score_name,
        **competing(options),
    }


def competing(options: SelectionOptions | LayerChoice | Grid) -> dict[str, Any]:
    """The columns that say which weights compete."""
    return {name: joined(getattr(options, name)) for name in ("layers", "include", "exclude")}


def joined(value: Any) -> str:
    """The names and types of an option joined by ``;``; empty for None."""
    if value is None:
        return ""
    items = [value] if isinstance(value, str | type) else list(value)
    return ";".join(item if isinstance(item, str) else item.__name__ for item in items)


def configuration(
    grid: Grid, columns: Mapping[str, Any], loader: Iterable[Any], variants: Variants
) -> dict[str, Any]:
    """What must be the same for a sweep to continue: all but what only changes its speed."""
    config = {name: columns[name] for name in columns if name not in ("batch_size", "versions")}
    names = {"scope": "scope_name"} | {n: n for n in ("prune_type", "granularity", "score_name")}
    for name, attribute in names.items():
        config[name] = list(dict.fromkeys(getattr(c.setting, attribute) for c in grid.cells))
    if grid.ratios is not None:
        config["ratios"] = dict(grid.ratios)
    return config | {
        "images": length(loader),
        "p_prune": grid.p_prunes,
        "p_bern": grid.p_berns,
        **competing(grid),
        "repair": joined(grid.repair),
        "draws": grid.draws,
        "seed": grid.seed,
        "candidates": _fingerprints(
            variants, [cell for cell in grid.cells if not is_named(cell.setting.criterion, columns)]
        ),
    }


def alike_on_ranks(
    config: Mapping[str, Any], grid: Grid, columns: Mapping[str, Any], variants: Variants
) -> dict[str, Any]:
    """What must be the same on ranks that split the images: all but the device.

    Args:
        config: the configuration.
        grid: the grid.
        columns: the shared columns.
        variants: the variants of the grid; the candidates of all of them are compared.
    """
    same = {name: value for name, value in config.items() if name != "device"}
    return same | {
        "batch_size": columns["batch_size"],
        "candidates": _fingerprints(variants, grid.cells),
    }


def _fingerprints(variants: Variants, cells: Iterable[Cell]) -> dict[str, str]:
    """A hash of the candidates of each setting, by the setting's name."""
    return {
        f"{setting.granularity} {setting.scope_name} {setting.score_name}": variants.fingerprint(
            cell
        )
        for setting, cell in {cell.setting: cell for cell in cells}.items()
    }


def is_named(criterion: Criterion, columns: Mapping[str, Any]) -> bool:
    """Whether the columns hold all that the scores depend on.

    They hold neither a function's code nor gradients that the caller left in the model.
    """
    known = not criterion.needs_gradients or bool(columns["score_data"])
    observed = not criterion.needs_inputs or bool(columns["calibration_sha256"])
    return criterion.is_built_in and known and observed


def columns_of_cell(cell: Cell) -> dict[str, Any]:
    """The columns by which a row of one grid is that of a cell."""
    return {
        "prune_type": cell.setting.prune_type,
        "granularity": cell.setting.granularity,
        "scope": cell.setting.scope_name,
        "score": cell.setting.score_name,
        "repair": joined(cell.setting.repair),
        "p_prune": cell.p_prune,
        "p_bern": cell.p_bern,
        "draws": len(cell.variants),
        "seed": cell.variants[0].seed,
    }


def make_row(
    cell: Cell, progress: Mapping[str, Progress], size: Size, grid: Grid, columns: Mapping[str, Any]
) -> Row:
    """Average the draws of one cell into a row."""
    shared: dict[str, Any] = dict(columns)
    criterion = cell.setting.criterion
    if not criterion.needs_gradients:
        shared["score_data"] = ""
    if not (cell.setting.repair or criterion.needs_inputs):
        shared |= {"calibration": "", "calibration_sha256": "", "calibration_count": 0}
    found = [progress[variant.key] for variant in cell.variants]
    tallies = [each.tally for each in found]
    count = tallies[0].count
    top1, top5 = mean(t.top1 for t in tallies), mean(t.top5 for t in tallies)
    low, high = wilson_interval(mean(t.correct1 for t in tallies), count)
    seconds = sum(each.seconds for each in found)
    return Row(
        **shared,
        **columns_of_cell(cell),
        **competing(grid),
        achieved=mean(each.achieved for each in found),
        targets=size.targets,
        units=size.units,
        count=count,
        top1=top1,
        top1_err=100.0 - top1,
        top1_low=100.0 * low,
        top1_high=100.0 * high,
        top1_std=stdev(t.top1 for t in tallies) if len(tallies) > 1 else 0.0,
        top5=top5,
        top5_err=100.0 - top5,
        loss=mean(t.loss for t in tallies),
        correct1=";".join(str(t.correct1) for t in tallies),
        correct5=";".join(str(t.correct5) for t in tallies),
        infer_samples_per_sec=round(count * len(found) / seconds, 2) if seconds else 0.0,
        duration=round(seconds, 3),
    )


def layer_rows(row: Row, layers: Sparsity | None) -> list[LayerRow]:
    """What each layer kept in the setting of a row; none where that was not counted."""
    shared = ("model", "prune_type", "granularity", "scope", "score", "p_prune", "p_bern", "seed")
    setting: dict[str, Any] = {name: getattr(row, name) for name in shared}
    return [
        LayerRow(**setting, layer=one.name, total=one.total, kept=one.total - one.zeros)
        for one in layers or ()
    ]
