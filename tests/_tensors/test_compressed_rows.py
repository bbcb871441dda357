"""Products of a sparse matrix and a dense one."""

import pytest
import torch

from secateurs._tensors.compressed_rows import sparse_product


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("columns", [0, 1, 5])
@pytest.mark.parametrize("empty", ["nothing", "rows and columns", "everything"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dense_product_comes_out(dtype: torch.dtype, empty: str, columns: int) -> None:
    dense = torch.randn(6, 4, dtype=dtype)
    if empty == "everything":
        dense.zero_()
    elif empty == "rows and columns":
        dense[2], dense[:, 1] = 0, 0
    matrix, inputs, bias = dense.to_sparse_csr(), torch.randn(4, columns, dtype=dtype), dense[:, 3]
    torch.testing.assert_close(sparse_product(matrix, inputs), dense @ inputs)
    torch.testing.assert_close(sparse_product(matrix, inputs, bias), dense @ inputs + bias[:, None])
    # What the output held is overwritten, and not multiplied by zero.
    out = torch.full((6, columns), torch.nan, dtype=dtype)
    assert sparse_product(matrix, inputs, out=out) is out
    torch.testing.assert_close(out, dense @ inputs)
