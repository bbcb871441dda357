"""Which images each network of a run got right: one bit an image, to compare runs by image."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from secateurs._io.json_objects import BrokenJSONError, as_list, as_text, parse_object
from secateurs._io.regular_files import read_if_there
from secateurs.errors import FailureError
from secateurs.results.row import Row

OUTCOMES = "outcomes.json"
_HEX = re.compile(r"1|[1-9a-f][0-9a-f]*")


def packed(digits: str) -> str:
    """Text of the digits 0 and 1 as a quarter as many hexadecimal digits.

    Example:
        >>> packed("00010"), unpacked("22")
        ('22', '00010')
    """
    return f"{int('1' + digits, 2):x}"  # the 1 in front keeps the zeros that follow it


def unpacked(text: str) -> str:
    """The digits from which `packed` made a text.

    Raises:
        BrokenJSONError: It is not such a text.
    """
    if not _HEX.fullmatch(text):
        raise BrokenJSONError("the outcomes of images are not a hexadecimal number")
    return f"{int(text, 16):b}"[1:]


def outcome_key(row: Row) -> str:
    """The name of a row in the file of outcomes; a folder has one row of each name."""
    parts = (row.prune_type, row.granularity, row.scope, row.score, row.repair)
    return " ".join((*filter(None, parts), f"{row.p_prune!r} {row.p_bern!r} {row.seed}"))


def outcomes_text(outcomes: Mapping[str, Sequence[str]]) -> str:
    """The content of a file of outcomes.

    Args:
        outcomes: for each `outcome_key` the digits of each draw, in the order of the data.
    """
    packs = {key: [packed(each) for each in draws] for key, draws in outcomes.items()}
    return json.dumps(packs, indent=1) + "\n"


def read_outcomes(folder: Path) -> dict[str, list[str]]:
    """For each `outcome_key` the digits of each draw; {} in a folder without outcomes.

    Raises:
        FailureError: The file is broken or cannot be read.
    """
    path = folder / OUTCOMES
    content = read_if_there(path)
    if content is None:
        return {}
    try:
        values = parse_object(content)
        return {key: [unpacked(as_text(each)) for each in as_list(values[key])] for key in values}
    except BrokenJSONError as error:
        raise FailureError(
            f"{path} is broken ({error}); remove it, and runs are compared without pairing"
        ) from error
