"""A run on disk: its rows, and what its folder holds beside them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateurs._io.text import printable
from secateurs.errors import InvalidArgumentError, SecateursError
from secateurs.report.page.page_parts import Details
from secateurs.results import LayerRow, Record, kind_of_rows, read_any_rows, read_layer_rows
from secateurs.results.config import read_config
from secateurs.results.folder import CONFIG
from secateurs.results.run_command import read_command

_LONGEST = 400
"""Letters of a value that a table of a configuration shows."""


@dataclass(frozen=True)
class Run:
    """The results of one command.

    Attributes:
        path: The folder or file that was given.
        kind: The kind of the rows.
        rows: The rows.
        layers: What each layer kept, where the run wrote it.
        config: The configuration; empty where only a file of rows was given.
        command: The command line that the run recorded; "" if it was made from Python.
    """

    path: Path
    kind: type[Record]
    rows: Sequence[Any]
    layers: Sequence[LayerRow]
    config: Mapping[str, Any]
    command: str

    @property
    def name(self) -> str:
        """The name of the folder or file."""
        return printable(self.path.resolve().name)

    @property
    def details(self) -> Details:
        """What all rows share, the configuration, and the versions."""
        shared = _shared(self.rows)
        versions = _versions(str(shared.pop("versions", "")))
        asked = {
            name: value
            for name, value in self.config.items()
            if value not in ("", None, [], {}) and str(value) != str(shared.get(name))
        }
        tables = {
            "The same in all rows": _texts(shared),
            "Configuration": _texts(asked),
            "Versions": versions,
        }
        return Details(
            f"Configuration and versions of {self.name}",
            [(heading, values) for heading, values in tables.items() if values],
        )


def read_run(path: Path) -> Run | None:
    """Read a run; None while it has no finished rows.

    Raises:
        InvalidArgumentError: There are no results at the path.
        FailureError: A file cannot be read.
    """
    kind = kind_of_rows(path)
    if kind is None:
        return None
    rows = read_any_rows(path)
    if not path.is_dir():
        return Run(path, kind, rows, [], {}, "")
    try:
        config = read_config(path / CONFIG) or {}
    except InvalidArgumentError:  # not a configuration; the rows say what was run
        config = {}
    return Run(path, kind, rows, read_layer_rows(path), config, _command(path))


def _command(folder: Path) -> str:
    try:
        return printable(str(read_command(folder) or ""))
    except SecateursError:  # the file is broken; the rows say what was run
        return ""


def _shared(rows: Sequence[Record]) -> dict[str, Any]:
    """The columns that have one value in all rows, without the empty ones."""
    values = [row.as_dict() for row in rows]
    first = values[0]
    return {
        name: value
        for name, value in first.items()
        if value not in ("", None) and all(each[name] == value for each in values)
    }


def _versions(text: str) -> list[tuple[str, str]]:
    pairs = (part.partition("=") for part in text.split(";") if part)
    return [(printable(name), printable(number)) for name, _, number in pairs]


def _texts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(printable(name), _shortened(value)) for name, value in values.items()]


def _shortened(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
