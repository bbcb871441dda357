"""The tensors that are found in what a model returns."""

from dataclasses import dataclass

import torch

from secateurs.acceleration.observed_calls import tensors_in


@dataclass
class Output:
    values: torch.Tensor


def test_a_dataclass_has_tensors_only_as_an_instance() -> None:
    ones, twos = torch.ones(1), torch.full((1,), 2.0)
    found = list(tensors_in((Output, Output(ones), [twos])))
    assert [tensor.item() for tensor in found] == [1, 2]
