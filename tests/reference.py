"""The oracle: pruning in plain Python, slow and obvious, one number at a time.

Nothing here is clever, and nothing here comes from the package.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch

Flags = list[bool]


@dataclass(frozen=True)
class Weight:
    """One weight as plain numbers.

    ``values`` in flat order; ``groups`` is set for the weight of a transposed convolution, whose
    output channels lie along the second dimension, ``groups`` times over. ``outputs`` names the
    dimensions of an output where they are others than the first: of the columns of a ``Conv1D``,
    or of the rows or columns of each of several experts, whose matrices are linear layers.
    """

    shape: tuple[int, ...]
    values: list[float]
    wide: bool = False  # float64
    groups: int | None = None
    outputs: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls,
        tensor: torch.Tensor,
        groups: int | None = None,
        outputs: tuple[int, ...] | None = None,
    ) -> "Weight":
        values = tensor.detach().to(torch.float64).reshape(-1).tolist()
        return cls(tuple(tensor.shape), values, tensor.dtype == torch.float64, groups, outputs)


def units(weight: Weight, granularity: str) -> list[list[int]]:
    """The flat indices of the elements of each unit, in the order of the units."""
    places = list(product(*map(range, weight.shape)))
    if granularity == "weight" or len(weight.shape) < 2:
        return [[i] for i in range(len(places))]
    if weight.outputs:
        if granularity == "kernel":
            return [[i] for i in range(len(places))]
        names = list(product(*(range(weight.shape[d]) for d in weight.outputs)))
        found = [tuple(place[d] for d in weight.outputs) for place in places]
        return [[i for i, f in enumerate(found) if f == name] for name in names]
    first, second = weight.shape[:2]
    if granularity == "kernel":
        names = list(product(range(first), range(second)))
        found = [place[:2] for place in places]
    elif weight.groups:
        inside = first // weight.groups  # input channels in one group
        names = list(product(range(weight.groups), range(second)))
        found = [(place[0] // inside, place[1]) for place in places]
    else:
        names = [(i,) for i in range(first)]
        found = [place[:1] for place in places]
    return [[i for i, f in enumerate(found) if f == name] for name in names]


def l1(values: Sequence[float], wide: bool) -> float:
    """The sum of absolute values, exact, then rounded once: to float32 unless wide."""
    exact = math.fsum(abs(v) for v in values)
    return exact if wide or math.isinf(exact) else to_float32(exact)


def to_float32(value: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def smallest(scores: Sequence[Sequence[float]], k: int) -> list[Flags]:
    """Flag the k smallest of all lists together; of equal ones the earliest."""
    ranked = sorted(  # stable: equal scores stay in their order
        ((score, i, j) for i, row in enumerate(scores) for j, score in enumerate(row)),
        key=lambda entry: entry[0],
    )
    flags = [[False] * len(row) for row in scores]
    for _, i, j in ranked[:k]:
        flags[i][j] = True
    return flags


def candidates(
    weights: Mapping[str, Weight],
    p_prune: float,
    granularity: str,
    scope: str,
    score: Callable[[str], Sequence[float]] | None = None,
) -> dict[str, Flags]:
    """One flag a unit. ``score`` gives the element scores of a weight, by default its values."""
    if ":" in scope:
        kept, of = map(int, scope.split(":"))
        return {
            name: neighbours(weight, (of - kept) if p_prune else 0, of, score and score(name))
            for name, weight in weights.items()
        }
    rows: dict[str, list[float]] = {}
    for name, weight in weights.items():
        values = weight.values if score is None else score(name)
        rows[name] = [l1([values[i] for i in u], weight.wide) for u in units(weight, granularity)]
    groups = [[name] for name in rows] if scope == "layer" else [list(rows)]
    chosen: dict[str, Flags] = {}
    for group in groups:
        k = round(p_prune * sum(len(rows[name]) for name in group))
        chosen |= dict(zip(group, smallest([rows[name] for name in group], k), strict=True))
    return chosen


def neighbours(weight: Weight, count: int, of: int, score: Sequence[float] | None = None) -> Flags:
    """Flag the ``count`` smallest of every ``of`` consecutive inputs of each output."""
    values = weight.values if score is None else score
    found = [False] * len(values)
    for output in units(weight, "filter"):
        for start in range(0, len(output), of):
            group = output[start : start + of]
            (flags,) = smallest([[abs(values[i]) for i in group]], count)
            for i, flag in zip(group, flags, strict=True):
                found[i] = flag
    return found


def pruned(
    weight: Weight, granularity: str, candidate: Flags, bernoulli: Flags | None = None
) -> list[float]:
    """The weight with ``(1 - candidate * b)`` applied; every b is one without a table."""
    values = list(weight.values)
    table = [True] * len(candidate) if bernoulli is None else bernoulli
    for elements, c, b in zip(units(weight, granularity), candidate, table, strict=True):
        if c and b:
            for i in elements:
                values[i] = 0.0
    return values


WORD = 2**64


def philox(key: int, counter: int) -> list[int]:
    """Four words of Philox4x64-10 (Salmon et al. 2011, section 3.3), by its definition."""
    keys = [key % WORD, key // WORD]
    block = [counter % WORD, counter // WORD, 0, 0]
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * block[0], 0xCA5A826395121157 * block[2]
        block = [
            second // WORD ^ block[1] ^ keys[0],
            second % WORD,
            first // WORD ^ block[3] ^ keys[1],
            first % WORD,
        ]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) % WORD, (keys[1] + 0xBB67AE8584CAA73B) % WORD]
    return block


def splitmix(seed: int, count: int) -> list[int]:
    """The first words of SplitMix64 (Steele et al. 2014, figure 16)."""
    words: list[int] = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % WORD
        mixed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 % WORD
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB % WORD
        words.append(mixed ^ mixed >> 31)
    return words


def coins(p: float, words: list[int], count: int) -> Flags:
    """Heads of ``count`` coins: byte i, and then finer number i, compared with p.

    ``words`` are the three random words from which all else follows.
    """
    low, high, seed = (word % WORD for word in words)
    data: list[int] = []
    for counter in range(-(-count // 32)):  # numpy's counter is raised before its first use
        for word in philox(low + high * WORD, counter + 1):
            data += word.to_bytes(8, "little")
    return [
        byte + (fine >> 11) / 2**53 < p * 256
        for byte, fine in zip(data, splitmix(seed, count), strict=False)
    ]


def solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x with matrix x = right, by Gaussian elimination."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for i in range(size):
        largest = max(range(i, size), key=lambda r: abs(rows[r][i]))
        rows[i], rows[largest] = rows[largest], rows[i]
        for j in range(size):
            if j != i:
                factor = rows[j][i] / rows[i][i]
                rows[j] = [a - factor * b for a, b in zip(rows[j], rows[i], strict=True)]
    return [row[-1] / row[i] for i, row in enumerate(rows)]


def reconstructed(
    inputs: Sequence[Sequence[float]],
    wanted: Sequence[float],
    start: Sequence[float],
    kept: Flags,
    damping: float,
) -> list[float]:
    """The weights of one output: zero where not kept, else the minimum of the damped square error.

    ``damping`` is a part of the mean square of the inputs.
    """
    count, size = len(inputs), len(start)
    mean = sum(x * x for row in inputs for x in row) / count / size
    places = [i for i in range(size) if kept[i]]
    matrix = [
        [
            sum(row[i] * row[j] for row in inputs) / count + (damping * mean if i == j else 0.0)
            for j in places
        ]
        for i in places
    ]
    right = [
        sum(row[i] * y for row, y in zip(inputs, wanted, strict=True)) / count
        + damping * mean * start[i]
        for i in places
    ]
    found = dict(zip(places, solved(matrix, right), strict=True))
    return [found.get(i, 0.0) for i in range(size)]


def lamp(values: Sequence[float]) -> list[float]:
    """Each square over the sum of those that are ranked no lower; of equal ones the later is."""
    ranked = sorted(range(len(values)), key=lambda i: values[i] ** 2)  # stable
    found = [0.0] * len(values)
    for place, index in enumerate(ranked):
        found[index] = values[index] ** 2 / math.fsum(values[i] ** 2 for i in ranked[place:])
    return found


def surgeon(
    hessian: Sequence[Sequence[float]],
    outputs: Sequence[Sequence[float]],
    count: int,
    block: int,
    neighbours: tuple[int, int] | None = None,
) -> list[list[float]]:
    """Optimal Brain Surgeon from the first input on, with an inverse of its own for each column.

    ``outputs`` are the weights of each output before any goes. Before each block of inputs it is
    chosen which of its weights go, over all outputs, by their cost; or before each M inputs the
    (pruned, M) of ``neighbours``, for each output. What goes takes the later weights along.
    """
    weights = [list(row) for row in outputs]
    size = len(hessian)

    def inverse_column(j: int) -> list[float]:
        later = [row[j:] for row in hessian[j:]]
        return solved(later, [1.0] + [0.0] * (size - j - 1))

    columns = [inverse_column(j) for j in range(size)]
    gone: set[tuple[int, int]] = set()
    for j in range(size):
        costs = [[w * w / columns[i][0] for i, w in enumerate(row)] for row in weights]
        if neighbours is not None and j % neighbours[1] == 0:
            for o, row in enumerate(costs):
                (flags,) = smallest([row[j : j + neighbours[1]]], neighbours[0])
                gone |= {(o, j + i) for i, flag in enumerate(flags) if flag}
        elif neighbours is None and j % block == 0:
            stop = min(j + block, size)
            k = count * stop // size - count * j // size
            flags = smallest([row[j:stop] for row in costs], k)
            gone |= {(o, j + i) for o, row in enumerate(flags) for i, f in enumerate(row) if f}
        for o, row in enumerate(weights):
            if (o, j) in gone:
                error = row[j] / columns[j][0]
                for i, value in enumerate(columns[j]):
                    row[j + i] -= error * value
    return [[0.0 if (o, j) in gone else w for j, w in enumerate(r)] for o, r in enumerate(weights)]
