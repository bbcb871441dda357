"""What names and shapes of weights say about their layers, both in a model and in a file.

This module alone decides which names mean an embedding, a normalisation, a router of experts or
experts, and which dimension of an expert's weight is that of the outputs.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from fnmatch import fnmatchcase
from itertools import pairwise

# Names of modules that are embeddings; the second list has exceptions, which are layers.
_EMBEDDINGS = ("*embed*", "wte", "wpe", "emb", "*_emb", "shared", "relative_attention_bias")
_NO_EMBEDDINGS = (
    "*embedder", "*embed*proj*", "*embed*mapping*", "*embed*conv*", "embed_out", "*patch*embed*",
)  # fmt: skip
_NORMS = ("*norm*", "ln", "ln_*", "*_ln", "bn", "bn[0-9]*")
# Other modules that stack the matrices of experts, if the tensor has three dimensions.
_STACKS = ("input_linear", "output_linear")
_ROUTERS = ("*router*", "gate", "*_gate", "gating")
_NO_MATRICES = ("*bias*", "*scale*", "*norm*", "*embed*", "*token*")

Shape = tuple[int, ...]


def is_embedding(layer: str) -> bool:
    """Whether a module is an embedding, by the last part of its name."""
    name = layer.lower()
    found = any(fnmatchcase(name, pattern) for pattern in _EMBEDDINGS)
    return found and not any(fnmatchcase(name, pattern) for pattern in _NO_EMBEDDINGS)


def is_norm(layer: str) -> bool:
    """Whether a module is a normalisation, by the last part of its name."""
    return any(fnmatchcase(layer.lower(), pattern) for pattern in _NORMS)


def layer_of(name: str) -> str:
    """The name of the module just around a parameter: ``"fc"`` for ``"layer1.fc.weight"``."""
    return name.rpartition(".")[0].rpartition(".")[2]


def experts_in(name: str, shape: Shape) -> str | None:
    """The module of experts that a tensor stacks the matrices of; None if it does not.

    Args:
        name: the tensor's qualified name.
        shape: the tensor's shape; a stack of matrices has three dimensions.

    Returns:
        The module's qualified name: tensors of the same experts have the same one.
    """
    parts = name.split(".")
    if len(shape) != 3 or not is_matrix(parts[-1]):
        return None
    for i, part in enumerate(parts[:-1]):
        # A number after the name means a list of modules, one for each expert.
        if _is_experts(part) and not _is_numbered(parts[i + 1]):
            return ".".join(parts[: i + 1])
    if len(parts) > 1 and parts[-2] in _STACKS:
        return ".".join(parts[:-2])
    return None


def is_apart(name: str) -> bool:
    """Whether a parameter belongs to one expert of a list: ``"experts.3.up.weight"``."""
    parts = name.split(".")
    return any(_is_experts(a) and _is_numbered(b) for a, b in pairwise(parts))


def is_matrix(attribute: str) -> bool:
    """Whether a parameter may hold matrices, by its name: no bias, scale or embedding."""
    return not any(fnmatchcase(attribute.lower(), pattern) for pattern in _NO_MATRICES)


def routers(names: Collection[str]) -> set[str]:
    """The qualified names that belong to a router, which is a gate beside experts."""
    every = "\n".join(names)  # one quick search first, since most models have no experts
    if "experts" not in every.lower() and not any(stack in every for stack in _STACKS):
        return set()
    holders = {
        holder
        for name in names
        for holder in _holders(name, lambda part: _is_experts(part) or part in _STACKS)
    }
    return {name for name in names if not holders.isdisjoint(_holders(name, _is_gate))}


def outputs_last(
    shape: Shape, *, bias: Shape | None = None, beside: Iterable[Shape] = ()
) -> bool | None:
    """Whether the matrices of a tensor are (in, out), inferred from the shapes beside it.

    Args:
        shape: of the tensor; its last two dimensions are those of its matrices.
        bias: the shape of its bias, which ends with the number of outputs.
        beside: the shapes of other tensors of the same experts. If gate and up are one tensor, it
            has twice as many outputs as the down projection has inputs, which shows the order.

    Returns:
        None if the shapes fit both ways.
    """
    stacked = [shape, *beside] if len(shape) == 3 else []
    for up in stacked:
        for down in stacked:
            if up[2] == 2 * down[1] and up[1] == down[2]:
                return True
            if up[1] == 2 * down[2] and up[2] == down[1]:
                return False
    if bias is None or len(bias) != len(shape) - 1 or shape[-1] == shape[-2]:
        return None
    return bias[-1] == shape[-1] if bias[-1] in shape[-2:] else None


def _is_experts(part: str) -> bool:
    return part.lower().endswith("experts")


def _is_numbered(part: str) -> bool:
    return part.rpartition("_")[2].isdecimal()


def _is_gate(part: str) -> bool:
    return any(fnmatchcase(part.lower(), pattern) for pattern in _ROUTERS)


def _holders(name: str, is_inside: Callable[[str], bool]) -> Iterator[str]:
    """Yield the modules just around such a module in a qualified name."""
    parts = name.split(".")
    for i, part in enumerate(parts[:-1]):
        if is_inside(part):
            yield ".".join(parts[:i])
