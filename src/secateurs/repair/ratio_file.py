"""Files of ratios: ``{"layer.weight": 0.5, ...}``, how much of each parameter is pruned."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from secateurs._io.json_objects import BrokenJSONError, parse_object
from secateurs._io.regular_files import read_regular
from secateurs._validation import check_path, check_ratio
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.results.durable import replace_files


def read_ratios(path: str | os.PathLike[str]) -> dict[str, float]:
    """Read the ratio of each parameter from a file of JSON.

    Raises:
        InvalidArgumentError: there is no such file, or it does not hold ratios from 0 to 1.
        FailureError: the file cannot be read.

    Example:
        >>> write_ratios("ratios.json", {"conv1.weight": 0.25, "fc.weight": 0.9})
        >>> read_ratios("ratios.json")
        {'conv1.weight': 0.25, 'fc.weight': 0.9}
    """
    file = check_path("ratios", path)
    try:
        found = parse_object(read_regular(file))
    except FileNotFoundError:
        raise InvalidArgumentError(
            f"no file of ratios {file}: secateurs sensitivity --allocate 0.5 writes one"
        ) from None
    except OSError as error:
        raise FailureError(f"cannot read {file}: {error.strerror or error}") from error
    except BrokenJSONError as error:
        raise InvalidArgumentError(
            f'{file} holds no ratios ({error}): write {{"layer.weight": 0.5}}'
        ) from error
    if not found:
        raise InvalidArgumentError(f'{file} is empty: write {{"layer.weight": 0.5}}')
    return {name: check_ratio(f"the ratio of {name}", found[name]) for name in found}


def write_ratios(path: str | os.PathLike[str], ratios: Mapping[str, float]) -> None:
    """Write the ratio of each parameter, which `read_ratios` reads.

    Raises:
        FailureError: the disk is full, or the file cannot be written.
    """
    text = json.dumps(dict(ratios), indent=2, ensure_ascii=False) + "\n"
    replace_files({Path(path): text.encode()})
