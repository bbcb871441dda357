"""Sparse products for the backward pass of linear layers of which few weights are kept."""

import torch
from torch import Tensor

from secateurs._tensors.compressed_rows import csr_of, sparse_product, unchecked_csr
from secateurs.gradient_pruning.masked_weight import is_batched

# Measured, one thread of an x86 machine with MKL, 500 x 500 with 128 inputs and 2048 x 2048 with
# 256: with 10% of the weights kept, the gradient to the input comes 1.5 to 1.8 times as fast, that
# to the kept weights twice as fast; with 5%, 2.8 to 3.0 and 2.7 to 4.1 times.
_LARGEST_SHARE = 0.1
_FEWEST_PRODUCTS = 30_000_000
_DTYPES = (torch.float32, torch.float64)


class MaskPattern:
    """Where a mask is true, in the forms that sparse products take.

    Args:
        keep: bool, (out, in), on a CPU.
        dtype: of the weight.

    Attributes:
        shape: of the mask.
        empty: (out, in), in compressed rows, for products of which these elements are computed.
        outputs: of the elements in order of columns.
        inputs: of the elements in order of columns.
    """

    def __init__(self, keep: Tensor, dtype: torch.dtype):
        self.shape, self.empty = keep.shape, csr_of(keep.to(dtype))
        transposed = csr_of(keep.mT)
        self._crow, self._columns = transposed.crow_indices(), transposed.col_indices()
        self.outputs, self.inputs = self._columns.long(), rows_of(transposed)

    def transposed(self, values: Tensor) -> Tensor:
        """The matrix (in, out) of these values, which are in order of columns of the mask."""
        return unchecked_csr(self._crow, self._columns, values, self.shape[::-1])


class SparsePattern(MaskPattern):
    """Where a mask keeps weights of a linear layer; the arguments are those of `MaskPattern`."""

    def __init__(self, keep: Tensor, dtype: torch.dtype):
        super().__init__(keep, dtype)
        self._kept = keep.flatten().nonzero().flatten()  # in order of rows
        self._by_column = self.outputs * keep.shape[1] + self.inputs

    def pays(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the products are large enough for sparse ones to be faster."""
        return x.numel() * weight.shape[0] >= _FEWEST_PRODUCTS and multiplies(x, weight)

    def to_input(self, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient to the input, (rows, in), of that to the output, (rows, out)."""
        matrix = self.transposed(weight.reshape(-1).index_select(0, self._by_column))
        return sparse_product(matrix, grad.mT.contiguous()).mT.contiguous()

    def to_weight(self, grad: Tensor, x: Tensor) -> Tensor:
        """The gradient to the kept weights, (out, in), with zeros elsewhere."""
        kept = torch.sparse.sampled_addmm(self.empty, grad.mT.contiguous(), x, beta=0.0)
        dense = x.new_zeros(self.shape)
        dense.view(-1).index_copy_(0, self._kept, kept.values())
        return dense


def rows_of(matrix: Tensor) -> Tensor:
    """The row of each element of a matrix in compressed rows."""
    counts = matrix.crow_indices().diff()
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def multiplies(x: Tensor, weight: Tensor) -> bool:
    """Whether there are sparse products of a weight with an input."""
    return x.dtype == weight.dtype and not torch.is_autocast_enabled("cpu")


def multiplies_in_backward(grad: Tensor) -> bool:
    """Whether sparse products can take a gradient, in the backward pass that runs now."""
    differentiated = torch.is_grad_enabled()
    return not (differentiated or torch.is_autocast_enabled("cpu") or is_batched(grad))


def keeps_few(weight: Tensor, keep: Tensor, share: float) -> bool:
    """Whether a mask keeps no more than a share, of a weight that sparse products can take."""
    if not weight.is_cpu or weight.dtype not in _DTYPES or not torch.backends.mkl.is_available():
        return False
    return int(torch.count_nonzero(keep)) <= share * keep.numel()


def sparse_pattern(weight: Tensor, keep: Tensor) -> SparsePattern | None:
    """The pattern of the mask of a linear layer; None where no sparse product pays."""
    if weight.dim() != 2 or keep.shape != weight.shape:
        return None
    return SparsePattern(keep, weight.dtype) if keeps_few(weight, keep, _LARGEST_SHARE) else None
