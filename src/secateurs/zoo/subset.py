"""Which images are taken where not all of them are wanted."""

import random
from collections.abc import Sequence


def subset(labels: Sequence[int], limit: int) -> list[int]:
    """Choose some images that represent all of them, the same at every call.

    The images are sorted by class, in a class in the order of the data, and divided into ``limit``
    groups of about equal size. The first image of each group is taken. So each class is represented
    in proportion to its size, whatever the order of the data is. Without classes (all labels are
    the same) a random image of each group is taken, with a fixed seed: if the classes alternate in
    the data, every n-th image would be of a few classes alone.

    Args:
        labels: the class of each image.
        limit: how many images are wanted.

    Returns:
        The indices of the images, rising; all of them, if there are not more than that.

    Example:
        >>> subset([0, 1, 0, 1, 0, 1, 0, 1], 4)
        [0, 1, 4, 5]
    """
    count = len(labels)
    if limit >= count:
        return list(range(count))
    order = sorted(range(count), key=labels.__getitem__)
    firsts = [part * count // limit for part in range(limit)]
    if labels[order[0]] != labels[order[-1]]:
        return sorted(order[first] for first in firsts)
    source = random.Random(count)
    stops = [*firsts[1:], count]
    return [source.randrange(a, b) for a, b in zip(firsts, stops, strict=True)]


def halves(labels: Sequence[int]) -> tuple[list[int], list[int]]:
    """Divide images into two halves, each of which represents all, the same at every call.

    Args:
        labels: as for `subset`.

    Returns:
        The indices of either half, rising; of an odd number the first half has one more.
    """
    first = subset(labels, (len(labels) + 1) // 2)
    taken = set(first)
    return first, [index for index in range(len(labels)) if index not in taken]
