"""A list of result rows that a notebook shows as a table, and that can draw itself."""

from importlib import import_module
from typing import Any, TypeVar

from secateurs.errors import require
from secateurs.results.record import Record

R = TypeVar("R", bound=Record)

_SHOWS = "secateurs.report.notebook"
"""What shows rows; it is imported when they are shown, since rows are read without it."""


class Rows(list[R]):
    """Rows of one command, as `read_rows` and `secateurs.evaluation.sweep` return them.

    Otherwise it is a list: a slice of it is a plain list, of which ``Rows(some)`` makes rows again.

    Example:
        >>> rows = Rows[Record]()
        >>> len(rows), rows == []
        (0, True)
    """

    def plot(self, **options: Any) -> Any:
        """Draw the rows with matplotlib.

        Args:
            **options: ``title``; of sweeps ``x``; of transfers ``outcome``, and ``kind``, which is
                "heatmap" or "curves". As of `secateurs.report.plot_rows`, `plot_transfer_heatmap`
                and `plot_transfer_curves`.

        Returns:
            A matplotlib figure.

        Raises:
            InvalidArgumentError: There is nothing to draw.
            FailureError: matplotlib is not installed.
        """
        return import_module(_SHOWS).rows_figure(self, **options)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a column for each column of the rows.

        Raises:
            FailureError: pandas is not installed.
        """
        require("pandas", "a DataFrame")
        pandas = import_module("pandas")
        columns = type(self[0]).columns() if self else None
        return pandas.DataFrame([row.as_dict() for row in self], columns=columns)

    def _repr_html_(self) -> str:
        return import_module(_SHOWS).rows_html(self)
