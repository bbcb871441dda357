from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers import assert_same, snapshot
from secateurs import (
    Diversified,
    InvalidArgumentError,
    Masks,
    apply_masks,
    global_prune,
    gradient_prune,
    restore,
    select,
    select_levels,
    sparsity,
)


def two(first: Tensor, second: Tensor) -> nn.ModuleDict:
    """An encoder and a decoder over memory of ours."""
    model = nn.ModuleDict(
        {"encoder": nn.Linear(4, 4, bias=False), "decoder": nn.Linear(4, 4, bias=False)}
    )
    model["encoder"].weight = nn.Parameter(first)
    model["decoder"].weight = nn.Parameter(second)
    return model


def transposed() -> nn.Module:
    weight = torch.randn(6, 4)
    return two(weight, weight.t())


def same_numbers() -> nn.Module:
    """As ``b.weight.data = a.weight.data`` makes them."""
    weight = torch.randn(4, 4)
    return two(weight, weight)


def rows_that_meet() -> nn.Module:
    flat = torch.randn(64)
    return two(flat[:32].view(8, 4), flat[28:60].view(8, 4))


def columns_that_meet() -> nn.Module:
    weight = torch.randn(4, 10)
    return two(weight[:, :6], weight[:, 5:])


def one_array() -> nn.Module:
    """Two storages over one memory."""
    array = np.random.default_rng(0).standard_normal((4, 4)).astype("float32")
    return two(torch.from_numpy(array), torch.from_numpy(array))


def other_dtype() -> nn.Module:
    weight = torch.randn(4, 4)
    return two(weight, weight.view(torch.float16))


SHARING = [
    transposed,
    same_numbers,
    rows_that_meet,
    columns_that_meet,
    one_array,
    other_dtype,
]
WORDS = (
    r"encoder\.weight and decoder\.weight are views of the same memory.*"
    r"give decoder\.weight memory of its own \(nn\.Parameter\(weight\.detach\(\)\.clone\(\)\)\)"
)


@pytest.mark.parametrize("build", SHARING)
@pytest.mark.parametrize(
    "function",
    [
        lambda m: select(m, 0.5),
        lambda m: select_levels(m, [0.5]),
        lambda m: global_prune(m, 0.5),
        lambda m: gradient_prune(m, 0.5),
        lambda m: Diversified(m, 0.5, 0.5),
    ],
)
def test_views_of_one_memory_are_refused_by_name(
    build: Callable[[], nn.Module], function: Callable[[nn.Module], object]
) -> None:
    model = build()
    before = snapshot(model)
    with pytest.raises(InvalidArgumentError, match=WORDS):
        function(model)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("build", SHARING)
def test_masks_are_not_written_into_shared_memory(build: Callable[[], nn.Module]) -> None:
    model = build()
    before = snapshot(model)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    masks = Masks.from_tensors({n: torch.arange(s.numel()).reshape(s) % 2 == 0
                                for n, s in shapes.items()})  # fmt: skip
    with pytest.raises(InvalidArgumentError, match=WORDS):
        apply_masks(model, masks)
    assert_same(snapshot(model), before)
    assert not list(model.buffers())


def embedding() -> nn.Module:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    model[1].weight = nn.Parameter(model[0].weight.detach())
    return model


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (transposed, {"exclude": "encoder"}),
        (transposed, {"include": "decoder"}),
        (embedding, {}),
    ],
)
def test_memory_of_weights_that_do_not_compete_is_not_written_either(
    build: Callable[[], nn.Module], options: dict[str, str]
) -> None:
    model = build()
    before = snapshot(model)
    with pytest.raises(InvalidArgumentError, match="views of the same memory"):
        global_prune(model, 0.5, **options)
    assert_same(snapshot(model), before)


@pytest.mark.parametrize("build", SHARING)
def test_the_remedies_work(build: Callable[[], nn.Module]) -> None:
    model = build()
    decoder = model.get_submodule("decoder")
    decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    assert sparsity(global_prune(model, 0.5)).zeros == round(0.5 * sparsity(model).total)
    model = same_numbers()
    model.get_submodule("decoder").weight = model.get_submodule("encoder").weight
    assert sparsity(global_prune(model, 0.5)).ratio == 0.5


def columns() -> nn.Module:
    weight = torch.randn(4, 10)
    return two(weight[:, :6], weight[:, 6:])


def interleaved() -> nn.Module:
    weight = torch.randn(4, 10)
    return two(weight[:, ::2], weight[:, 1::2])


def slices() -> nn.Module:
    flat = torch.randn(64)
    return two(flat[:32].view(8, 4), flat[32:].view(8, 4))


def empty() -> nn.Module:
    flat = torch.randn(16)
    return two(flat.view(4, 4), flat[:0].view(0, 4))


@pytest.mark.parametrize("build", [columns, interleaved, slices, empty])
def test_slices_of_one_buffer_without_common_elements_are_fine(
    build: Callable[[], nn.Module],
) -> None:
    model = build()
    before = snapshot(model)
    counted = sparsity(global_prune(model, 0.5))
    assert counted.zeros == round(0.5 * counted.total)
    assert_same(snapshot(restore(model)), before)
