"""Sparse matrices in compressed rows, and such a matrix times a dense one."""

import warnings

import torch
from torch import Tensor


def csr_of(matrix: Tensor) -> Tensor:
    """A matrix in compressed sparse rows, with the 32-bit indices that MKL takes as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # "is in beta state"
        sparse = matrix.contiguous().to_sparse_csr()
        index = torch.int32 if sparse.values().numel() < 2**31 else torch.int64
        crow, columns = sparse.crow_indices().to(index), sparse.col_indices().to(index)
        return unchecked_csr(crow, columns, sparse.values(), matrix.shape)


def unchecked_csr(crow: Tensor, columns: Tensor, values: Tensor, size: tuple[int, ...]) -> Tensor:
    """A matrix in compressed rows, whose indices are known to be right."""
    device = values.device  # whatever torch.set_default_device says
    return torch.sparse_csr_tensor(
        crow, columns, values, size, device=device, check_invariants=False
    )


def sparse_product(
    matrix: Tensor, columns: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """A sparse matrix times a dense one, plus a bias, without filling the output first.

    torch fills the output of a sparse product with zeros and adds the product to them; filling
    takes up to a third of the whole time. Here it is left out on CPUs with MKL, which does not read
    an output that it overwrites (``beta`` of 0); for other libraries this was not measured.

    Args:
        matrix: outputs x inputs, in CSR.
        columns: inputs x pixels, contiguous.
        bias: a value for each output; default none.
        out: what the product is written to, outputs x pixels; default a new tensor.
    """
    if bias is not None:
        return torch.addmm(bias[:, None], matrix, columns, out=out)
    if matrix.device.type != "cpu" or not torch.backends.mkl.is_available():
        return torch.mm(matrix, columns, out=out)
    if out is None:
        out = columns.new_empty((matrix.shape[0], columns.shape[1]))
    return torch.addmm(out, matrix, columns, beta=0, out=out)
