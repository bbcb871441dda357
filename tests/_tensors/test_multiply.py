import pytest
import torch

from helpers import DTYPES
from secateurs._tensors.multiply import Product, as_integers, multiply, multiply_together


@pytest.mark.parametrize("block", [3, 1 << 18])
@pytest.mark.parametrize("integer", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shape", [(), (0, 2), (7,), (4, 3, 5, 2)])
@pytest.mark.parametrize("kind", ["same", "broadcast", "channels_last", "strided"])
def test_multiplying_by_blocks_is_multiplying(
    block: int, integer: torch.dtype, shape: tuple[int, ...], kind: str
) -> None:
    source = torch.randint(1, 100, shape).to(integer)
    keep, target = torch.rand(shape) < 0.5, torch.full(shape, 77).to(integer)
    if kind == "broadcast" and shape:
        keep = torch.rand(*shape[:1], *(1 for _ in shape[1:])) < 0.5
    elif kind == "channels_last" and len(shape) == 4:
        source, target = (t.to(memory_format=torch.channels_last) for t in (source, target))
    elif kind == "strided" and shape:
        target = torch.full((*shape, 2), 77).to(integer)[..., 0]
    multiply([Product(source, keep, target)], block=block)
    assert torch.equal(target, source * keep)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_tensors_in_threads(threads: int) -> None:
    sources = [torch.randn(size) for size in (5, 0, 1, 130, 64, 3)]
    keeps = [torch.rand(source.shape) < 0.5 for source in sources]
    products = [Product(s, k, torch.full_like(s, 7)) for s, k in zip(sources, keeps, strict=True)]
    multiply(products, block=4, threads=threads)
    for product in products:
        assert torch.equal(product.target, product.source * product.keep)


@pytest.mark.parametrize("dtype", DTYPES)
def test_kept_weights_keep_their_bits_and_others_are_plus_zero(dtype: torch.dtype) -> None:
    source = torch.tensor([-0.0, float("nan"), -3.0, float("inf")]).to(dtype)
    target = torch.ones_like(source)
    multiply([Product(source, torch.tensor([True, True, False, False]), target)])
    bits, expected = as_integers(target), as_integers(source).clone()
    expected[2:] = 0
    assert torch.equal(bits, expected)


def test_the_operations_for_other_devices_give_the_same() -> None:
    """A copy and a product for all tensors at once; here on the CPU, which can do it too."""
    shapes = [(3,), (), (4, 5), (2, 3, 4, 5)]
    sources = [as_integers(torch.randn(shape)) for shape in shapes]
    sources[-1] = sources[-1].contiguous(memory_format=torch.channels_last)
    keeps = [torch.rand(shape) < 0.5 for shape in shapes]
    products = [Product(s, k, torch.empty_like(s)) for s, k in zip(sources, keeps, strict=True)]
    multiply_together(products)
    for product in products:
        assert torch.equal(product.target, product.source * product.keep)
