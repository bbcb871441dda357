"""What result rows record of weights."""

import pytest
import torch
from torch import Tensor

from secateurs.provenance import tensors_sha256

VALUES = torch.tensor([[0.0, 1.5], [2.0, 0.0]])


@pytest.mark.parametrize(
    "tensor",
    [
        VALUES.to_sparse(),
        VALUES.to_sparse_csr(),
        VALUES.t().contiguous().t(),
        torch.complex(VALUES, -VALUES).conj().imag,  # a view whose values are read negated
    ],
)
def test_a_layout_in_memory_does_not_count(tensor: Tensor) -> None:
    assert tensors_sha256({"a": tensor}) == tensors_sha256({"a": VALUES})


def test_names_dtypes_shapes_and_values_count() -> None:
    conjugate = torch.complex(VALUES, VALUES).conj()
    assert tensors_sha256({"a": conjugate}) == tensors_sha256({"a": conjugate.resolve_conj()})
    different = [
        {"a": VALUES},
        {"b": VALUES},
        {"a": VALUES + 1},
        {"a": VALUES.double()},
        {"a": VALUES.flatten()},
        {"a": VALUES.to("meta")},
        {"a": conjugate},
        {"a": conjugate.resolve_conj().conj().resolve_conj()},
    ]
    assert len({tensors_sha256(one) for one in different}) == len(different)
