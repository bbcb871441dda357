"""Options of the command line as the library takes them, and the columns that they give."""

from dataclasses import fields
from typing import Any

import torch

from secateurs.cli.option_types import Competing, CompetingInScope
from secateurs.outputs import dtype_of
from secateurs.provenance import device_name, versions, weights_sha256
from secateurs.selection.selection_options import SelectionOptions
from secateurs.zoo import LoadedModel


def selection_of(asked: Competing, seed: int | None = None) -> SelectionOptions:
    """Which units compete.

    Raises:
        InvalidArgumentError: an unknown name, or options that exclude each other.
    """
    which = {field.name: getattr(asked, field.name) for field in fields(CompetingInScope)}
    return SelectionOptions(**{name: value for name, value in which.items() if value}, seed=seed)


def shared_columns(
    model: LoadedModel, options: SelectionOptions, device: torch.device
) -> dict[str, Any]:
    """The columns that say which network was pruned, which of its units competed, and where."""
    patterns: dict[str, Any] = {n: getattr(options, n) for n in ("layers", "include", "exclude")}
    return {
        "model": model.name,
        "weights": model.weights,
        "weights_sha256": weights_sha256(model.model),
        "preprocess": str(model.preprocess),
        "granularity": options.granularity,
        "scope": options.scope,
        "score": options.score_name,
        **{name: ";".join(value or ()) for name, value in patterns.items()},
        "param_count": sum(p.numel() for p in model.model.parameters()) / 1e6,
        "device": device_name(device),
        "dtype": str(dtype_of(model.model)).removeprefix("torch."),
        "versions": versions(),
    }
