"""The row of one layer in one setting of a run: how many of its weights were kept."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from secateurs._io.durable import replace_files
from secateurs.errors import FailureError
from secateurs.results.formats import jsonl_text, read_jsonl, to_rows
from secateurs.results.record import COUNT, Limits, Record, check_part

LAYERS = "layers.jsonl"
"""Name of the file in the folder of a run."""


@dataclass(frozen=True, kw_only=True)
class LayerRow(Record):
    """What one layer kept; the fields are those of a line of layers.jsonl.

    The columns that are not listed here are in several kinds of rows, see `Record`.

    Attributes:
        p_prune: Ratio of units that are candidates, or that are pruned in the end.
        seed: Seed of the draw or of the training.
        layer: Qualified name of the parameter.
        total: Its weights.
        kept: How many of them were kept.
        most: The largest absolute value of a dense weight; 0.0 without a histogram.
        dense_counts: Numbers of dense weights by absolute value, in bins of equal width from 0 to
            ``most``, joined by ";"; "" without a histogram.
        kept_counts: The same for the weights that were kept, at the values they have now. Those
            above ``most`` count in the last bin.
    """

    KIND: ClassVar[str] = "run"
    LAST_ASKED: ClassVar[str] = "layer"
    LIMITS: ClassVar[Limits] = {"total": COUNT}

    model: str
    prune_type: str
    granularity: str
    scope: str
    score: str
    p_prune: float
    p_bern: float
    seed: int | None
    layer: str
    total: int
    kept: int
    most: float = 0.0
    dense_counts: str = ""
    kept_counts: str = ""

    @property
    def ratio(self) -> float:
        """The ratio of its weights that were kept."""
        return self.kept / self.total if self.total else 1.0

    @property
    def histogram(self) -> tuple[list[int], list[int]] | None:
        """The counts of dense and of kept weights, where there are any."""
        if not self.dense_counts or not self.kept_counts:
            return None
        dense, kept = ([int(n) for n in text.split(";")] for text in self._counts)
        return dense, kept

    @property
    def _counts(self) -> tuple[str, str]:
        return self.dense_counts, self.kept_counts

    def _check(self) -> None:
        check_part("kept", self.kept, self.total)
        bins = [text.split(";") if text else [] for text in self._counts]
        whole = all(part.isdecimal() and part.isascii() for part in (*bins[0], *bins[1]))
        if not whole or len(bins[0]) != len(bins[1]):
            raise FailureError(
                "columns dense_counts and kept_counts of a layer's row must hold equally many "
                "whole numbers, joined by ;"
            )


def write_layer_rows(folder: Path, rows: Iterable[LayerRow]) -> None:
    """Write the layers of a run into its folder, in place of those that are there.

    Raises:
        FailureError: The file cannot be written.
    """
    text = jsonl_text([row.as_dict() for row in rows])
    replace_files({folder / LAYERS: text.encode(errors="backslashreplace")})


def read_layer_rows(folder: Path) -> list[LayerRow]:
    """The layers in the folder of a run; none where the run wrote none.

    Raises:
        FailureError: A line is broken, or the file cannot be read.
    """
    path = folder / LAYERS
    return to_rows(LayerRow, read_jsonl(path), path)
