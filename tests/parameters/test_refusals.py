from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from secateurs import (
    Diversified,
    InvalidArgumentError,
    find_targets,
    global_prune,
    gradient_prune,
    restore,
    select,
    sparsity,
)


class Packed(Tensor):
    """A wrapper as quantisers make them: bytes and a scale, turned into floats when used."""

    data_of: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, data: Tensor, scale: Tensor) -> "Packed":
        return Tensor._make_wrapper_subclass(cls, data.shape, dtype=scale.dtype)  # type: ignore[attr-defined]

    def __init__(self, data: Tensor, scale: Tensor):
        self.data_of, self.scale = data, scale

    def dequantize(self) -> Tensor:
        return self.data_of * self.scale

    @classmethod
    def of(cls, weight: Tensor) -> "Packed":
        scale = weight.abs().amax(1, keepdim=True) / 127
        return cls((weight / scale).round().to(torch.int8), scale)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.detach.default:
            return Packed(args[0].data_of, args[0].scale)

        def plain(value: Any) -> Any:
            return value.dequantize() if isinstance(value, Packed) else value

        return func(*tree_map(plain, args), **tree_map(plain, kwargs or {}))


class Functions(Tensor):
    """Its functions are its own, its memory is ordinary."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


class Marked(nn.Parameter):
    """A Parameter that only carries a mark."""


class MarkedTensor(Tensor):
    """A tensor that only carries a mark."""


def with_weight(weight: Tensor, layers: int = 1) -> nn.Module:
    """Some layers with a weight like this, and an ordinary one."""
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(layers + 1)))
    for layer in model[:layers]:
        layer.weight = nn.Parameter(weight, requires_grad=False)
    return model


def values() -> Tensor:
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


REFUSED: list[tuple[Callable[[], Tensor], str]] = [
    (lambda: Packed.of(values()), "is a Packed, a tensor subclass"),
    (lambda: values().as_subclass(Functions), "is a Functions, a tensor subclass"),
    (lambda: values().to_sparse(), r"has the sparse layout torch\.sparse_coo"),
    (lambda: values().to_sparse_csr(), r"has the sparse layout torch\.sparse_csr"),
    (lambda: values().to_sparse_csc(), r"has the sparse layout torch\.sparse_csc"),
    (lambda: values().to_sparse_bsr((2, 2)), r"has the sparse layout torch\.sparse_bsr"),
    (lambda: values().to_sparse_bsc((2, 2)), r"has the sparse layout torch\.sparse_bsc"),
    (lambda: values().to_mkldnn(), "has the layout mkldnn"),
    (lambda: values().to(torch.int8), r"has dtype torch\.int8"),
    (lambda: torch.zeros(4, 2, dtype=torch.uint8), r"has dtype torch\.uint8"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED)
@pytest.mark.parametrize(
    "function",
    [
        lambda m: select(m, 0.5),
        lambda m: global_prune(m, 0.5),
        lambda m: gradient_prune(m, 0.5),
        lambda m: Diversified(m, 0.5, 0.5),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_tensors_that_are_no_dense_floats_are_refused_by_name(
    make: Callable[[], Tensor], words: str, function: Callable[[nn.Module], object]
) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"^0\.weight {words}.* exclude='0\.weight'"):
        function(with_weight(make()))
    several = with_weight(make(), 5)
    with pytest.raises(
        InvalidArgumentError, match=rf"5 parameters \(0\.weight, .*2 more\) {words}"
    ):
        function(several)


@pytest.mark.parametrize("make", [make for make, _ in REFUSED])
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_the_exclusion_that_is_named_works(make: Callable[[], Tensor]) -> None:
    model = with_weight(make(), 2)
    with pytest.raises(InvalidArgumentError) as caught:
        find_targets(model)
    exclude = eval(str(caught.value).rpartition("exclude=")[2])
    assert [t.name for t in find_targets(model, exclude=exclude)] == ["2.weight"]
    global_prune(model, 0.5, exclude=exclude)
    assert (model[2].weight == 0).sum() == 8
    restore(model)


@pytest.mark.parametrize(
    "make",
    [lambda: values().to_sparse(), lambda: values().to_mkldnn(), lambda: Packed.of(values())],
)
def test_the_replacement_that_is_named_works(make: Callable[[], Tensor]) -> None:
    weight = make()
    dense = weight.dequantize() if isinstance(weight, Packed) else weight.detach().to_dense()
    assert sparsity(global_prune(with_weight(dense), 0.5)).ratio == 0.5


@pytest.mark.parametrize(
    "parameter",
    [lambda: Marked(values()), lambda: nn.Parameter(values().as_subclass(MarkedTensor))],
)
def test_a_subclass_without_functions_of_its_own_is_pruned(parameter: Callable[[], Any]) -> None:
    model = nn.Linear(4, 4)
    model.weight = parameter()
    before = model.weight.detach().clone()
    assert sparsity(global_prune(model, 0.5)).ratio == 0.5
    assert (model.weight == 0).sum() == 8
    assert torch.equal(restore(model).weight.detach(), before)
    assert type(model.weight) in (Marked, MarkedTensor)


def test_scripted_parts_are_refused_where_they_are_chosen() -> None:
    model = nn.Sequential(torch.jit.script(nn.Linear(4, 4)), nn.Linear(4, 4))
    assert [t.name for t in find_targets(model)] == ["1.weight"]
    with pytest.raises(InvalidArgumentError, match=r"inside a scripted or traced module.*exclude="):
        find_targets(model, layers="all")
    assert len(find_targets(model, layers="all", exclude="0.*")) == 2
