"""Which tensors of a checkpoint compete, chosen by names, shapes and dtypes alone."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from secateurs._validation import check_choice, nearest
from secateurs.checkpoint.contents import FLOATS, Entry
from secateurs.errors import Advice, Argument, InvalidArgumentError
from secateurs.parameters.layer_choice import Patterns
from secateurs.parameters.layer_names import experts_in, is_embedding, is_norm, layer_of, routers
from secateurs.parameters.patterns import name_matches

KINDS = (
    "default", "conv", "conv1d", "conv2d", "conv3d", "linear", "attention", "experts", "recurrent",
    "all",
)  # fmt: skip
_EVERY_KIND = ("default", "recurrent")
_DIMENSIONS = {"conv": (3, 4, 5), "conv1d": (3,), "conv2d": (4,), "conv3d": (5,), "linear": (2,)}
_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_RECURRENT = ("weight_ih*", "weight_hh*", "weight_hr*")
_STATISTICS = ("running_mean", "running_var")


def choose(
    entries: Sequence[Entry],
    *,
    layers: Patterns | None = None,
    include: Patterns | None = None,
    exclude: Patterns | None = None,
) -> list[Entry]:
    """Choose the tensors that compete, in the order of ``entries``.

    By default these are the weights of convolutions, linear layers, attention projections and
    stacked experts, by their names and shapes: floating point, two dimensions or more, called
    ``weight`` (or ``in_proj_weight`` and the like, or anything of three dimensions in a module
    called ``experts``), and not in a module with the name of an embedding, a normalisation or a
    router. A convolution that embeds patches has more than two dimensions and is chosen.

    Args:
        entries: all tensors.
        layers: one or more of `KINDS`: ``"conv2d"`` means weights of four dimensions, ``"linear"``
            of two, ``"recurrent"`` those called ``weight_ih`` and the like, and ``"all"`` every
            floating-point tensor except running statistics.
        include: globs on the names of tensors or of the modules around them. Each chooses its
            matches among ``layers``. Without a match there, it chooses among the weights of any
            kind, and without a match there either, among all tensors.
        exclude: globs on the names of tensors or modules that are not pruned, applied last.

    Raises:
        InvalidArgumentError: a pattern matches nothing, nothing is left, or a chosen tensor has a
            dtype that cannot be pruned.
    """
    kinds = [check_choice("layers", kind, KINDS) for kind in _as_list("layers", layers, "default")]
    names = [name for entry in entries for name in entry.names]
    attentions = {n.removesuffix(p) for n in names for p in _PROJECTIONS if n.endswith(p)}
    of_layers = _of_kinds(entries, kinds, attentions)
    if "all" not in kinds:
        of_layers -= _routers_and_embeddings(entries, names)
    chosen = of_layers
    if include is not None:
        chosen = set[str]()
        for pattern in _as_list("include", include):
            matched = _matching(entries, "include", pattern)
            weights = matched & of_layers or matched & _of_kinds(entries, _EVERY_KIND, attentions)
            chosen |= weights or matched
    for pattern in _as_list("exclude", exclude):
        chosen = chosen - _matching(entries, "exclude", pattern)
    found = [entry for entry in entries if entry.name in chosen]
    for entry in found:
        if entry.dtype not in FLOATS:
            raise InvalidArgumentError(
                f"{entry.name} has dtype {entry.dtype}, which cannot be pruned: only "
                f"floating-point weights with a zero can; write ",
                Argument("exclude", entry.name),
            )
    if not any(entry.count for entry in found):
        raise InvalidArgumentError(
            f"nothing to prune among {len(entries)} tensors: no weight of a convolution or a "
            "linear layer by its name and shape; name others with ",
            Argument("include"),
            " or ",
            Argument("layers", "all"),
        )
    return found


def _as_list(option: str, value: Patterns | None, otherwise: str | None = None) -> list[str]:
    if value is None:
        return [] if otherwise is None else [otherwise]
    values = [value] if isinstance(value, str | type) else list(value)
    names = [item for item in values if isinstance(item, str)]
    if not names or len(names) < len(values):
        raise InvalidArgumentError(Argument(option), f" takes one or more names, got {value!r}")
    return names


def _matching(entries: Iterable[Entry], option: str, pattern: str) -> set[str]:
    found = {e.name for e in entries if any(name_matches(name, pattern) for name in e.names)}
    if not found:
        names = [name for entry in entries for name in entry.names]
        raise InvalidArgumentError(
            Argument(option, pattern),
            f" matches no tensor and no module{nearest(pattern, names[:2000])}",
            Advice("", " (--dry-run lists the names)"),
        )
    return found


def _of_kinds(entries: Sequence[Entry], kinds: Sequence[str], attentions: set[str]) -> set[str]:
    return {e.name for e in entries for n in e.names if _is_of_kinds(e, n, kinds, attentions)}


def _routers_and_embeddings(entries: Sequence[Entry], names: Sequence[str]) -> set[str]:
    """Routers of experts, and embeddings, even those whose weight an output layer shares."""
    gates = routers(names)
    biased = {n.removesuffix("bias") for n in names if n.rpartition(".")[2] == "bias"}
    return {
        entry.name
        for entry in entries
        for name in entry.names
        if name in gates
        or (
            len(entry.shape) == 2
            and is_embedding(layer_of(name))
            and name.removesuffix("weight") not in biased  # embeddings have no bias
        )
    }


def _is_of_kinds(entry: Entry, name: str, kinds: Sequence[str], attentions: set[str]) -> bool:
    module, _, attribute = name.rpartition(".")
    if entry.dtype not in FLOATS:
        return False
    if "all" in kinds:
        return attribute not in _STATISTICS
    dimensions = len(entry.shape)
    if any(fnmatchcase(attribute, pattern) for pattern in _RECURRENT):
        return "recurrent" in kinds and dimensions == 2
    if experts_in(name, entry.shape) is not None:
        return not {"default", "experts"}.isdisjoint(kinds)
    prefix, _, layer = module.rpartition(".")
    attention = f"{prefix}." if prefix else ""
    is_projection = attribute in _PROJECTIONS or (layer == "out_proj" and attention in attentions)
    if dimensions >= 2 and is_projection and {"default", "attention"} & set(kinds):
        return True
    if attribute != "weight" or is_norm(layer):
        return False
    wanted = {d for kind in kinds for d in _DIMENSIONS.get(kind, ())}
    return dimensions >= 2 if "default" in kinds else dimensions in wanted
