"""Names of networks, without a prefix and wrapped, and how a pruning is called."""

import re
from collections.abc import Iterable
from pathlib import PurePath


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Names without prefixes such as "torchvision:", unless two would become equal."""
    full = set(names)
    short = {name: name.partition(":")[2] or name for name in full}
    return short if len(set(short.values())) == len(full) else {name: name for name in full}


def short_paths(paths: Iterable[str]) -> dict[str, str]:
    """The last part of each path, unless two would become equal."""
    full = set(paths)
    short = {path: PurePath(path).name or path for path in full}
    return short if len(set(short.values())) == len(full) else {path: path for path in full}


def name_parts(name: str) -> list[str]:
    """The parts between which a name may be wrapped: each ends with "_", "-" and the like.

    Example:
        >>> name_parts("dwp 0.7 0.05")  # a number stays whole
        ['dwp ', '0.7 ', '0.05', '']
    """
    return re.findall(r"(?:[^_\-./:; ]|(?<=\d)\.(?=\d))*[_\-./:; ]?", name)


def break_name(name: str, width: int) -> list[str]:
    """Wrap a name to lines of at most `width` letters, if possible after "_", "-" and the like.

    Example:
        >>> break_name("tf_efficientnet_lite0", 13)
        ['tf_', 'efficientnet_', 'lite0']
    """
    lines = [""]
    for part in name_parts(name):
        pieces = [part[i : i + width] for i in range(0, len(part), width)]
        for piece in pieces:
            if len((lines[-1] + piece).rstrip()) <= width:
                lines[-1] += piece
            else:
                lines.append(piece)
    return [line.strip() for line in lines if line.strip()] or [name]


def ranking(granularity: str, scope: str, score: str) -> str:
    """Which units were pruned, in words; what is empty is left out.

    Example:
        >>> ranking("kernel", "layer", "lamp"), ranking("weight", "2:4", "magnitude")
        ('kernels ranked per layer by lamp', 'weights pruned 2:4 by magnitude')
    """
    known = {"": "ranked", "global": "ranked globally", "layer": "ranked per layer"}
    how = known.get(scope, f"pruned {scope}")
    if scope.startswith("ratios "):
        how = f"ranked per layer, each with a ratio of its own ({scope}),"
    units, by = granularity and f"{granularity}s", score and f"by {score}"
    return " ".join(filter(None, (units, how, by)))
