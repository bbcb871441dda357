"""What was measured of each layer, and what was chosen: rows, a table, a CSV file."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from secateurs._io.durable import replace_files
from secateurs._validation import check_path

DENSE = "dense"
"""The name of the layer's own forward among what was measured."""


@dataclass(frozen=True)
class LayerTiming:
    """One layer at one shape of its input.

    Attributes:
        name: the layer's name in the model.
        layer: its class.
        shape: of the input.
        zeros: the ratio of its weights that are zero.
        kept: how many are not.
        calls: how often the example calls it with this shape.
        seconds: of one call, by the name of the kernel; empty where nothing but dense was tried.
        chosen: the name of the kernel that is used.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    zeros: float
    kept: int
    calls: int
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    chosen: str = DENSE

    @property
    def gain(self) -> float:
        """How many times as fast as dense the chosen kernel is: 1.0 for dense itself."""
        return self.seconds[DENSE] / self.seconds[self.chosen] if self.chosen != DENSE else 1.0

    @property
    def saved(self) -> float:
        """The seconds that it saves each time the example is run."""
        if self.chosen == DENSE:
            return 0.0
        return self.calls * (self.seconds[DENSE] - self.seconds[self.chosen])

    def with_fastest(self, margin: float) -> "LayerTiming":
        """The same with the fastest kernel chosen, if it is faster than dense by a margin."""
        if not self.seconds:
            return self
        fastest = min(self.seconds, key=self.seconds.__getitem__)
        enough = self.seconds[fastest] < (1 - margin) * self.seconds[DENSE]
        return replace(self, chosen=fastest if enough else DENSE)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a table or a file."""
        return {
            "layer": self.name,
            "kind": self.layer,
            "input": "x".join(map(str, self.shape)),
            "zeros": self.zeros,
            "calls": self.calls,
            "chosen": self.chosen,
            "dense_seconds": self.seconds.get(DENSE),
            "chosen_seconds": self.seconds.get(self.chosen),
            "gain": self.gain,
            "tried": "; ".join(f"{name} {s:.3g}" for name, s in self.seconds.items()),
        }


def table_text(timings: Sequence[LayerTiming]) -> str:
    """The timings as a table in plain text; seconds are in microseconds."""
    rows = [("layer", "input", "zeros", "chosen", "dense us", "us", "gain")]
    for one in timings:
        shown = one.as_dict()
        dense, fast = (
            f"{1e6 * one.seconds[name]:.1f}" if one.seconds else "" for name in (DENSE, one.chosen)
        )
        gain = f"{one.gain:.2f}x" if one.seconds else ""
        zeros = f"{one.zeros:.1%}"
        rows.append((one.name, shown["input"], zeros, one.chosen, dense, fast, gain))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = (0, 1, 3)  # the columns that are no numbers
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write rows as a CSV file.

    Raises:
        FailureError: the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_files({check_path("path", path): text.getvalue().encode()})
