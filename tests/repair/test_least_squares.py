import pytest
import torch

import reference
from secateurs.repair.least_squares import Moments, masked_least_squares


@pytest.mark.parametrize("around_mean", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_solution_is_that_of_the_oracle(groups: int, around_mean: bool) -> None:
    source = torch.Generator().manual_seed(0)
    inputs = torch.randn(groups, 9, 4, generator=source, dtype=torch.float64) + 1
    wanted = torch.randn(groups, 9, 3, generator=source, dtype=torch.float64)
    start = torch.randn(groups, 3, 4, generator=source, dtype=torch.float64)
    mask = torch.rand(start.shape, generator=source) < 0.6
    mask[0, 0] = False  # an output that loses everything
    moments = Moments()
    for part in (slice(0, 5), slice(5, 9)):
        moments.add(inputs[:, part], wanted[:, part])
    xx, xy, _ = moments.centred(around_mean)
    found = masked_least_squares(xx, xy, start, mask, 0.1)
    if around_mean:
        inputs, wanted = inputs - inputs.mean(1, True), wanted - wanted.mean(1, True)
    for group in range(groups):
        for row in range(3):
            expected = reference.reconstructed(
                inputs[group].tolist(),
                wanted[group, :, row].tolist(),
                start[group, row].tolist(),
                mask[group, row].tolist(),
                0.1,
            )
            assert found[group, row].tolist() == pytest.approx(expected)


def test_inputs_that_are_always_zero_leave_their_weights() -> None:
    zero, start = torch.zeros(1, 2, 2).double(), torch.ones(1, 1, 2).double()
    mask = torch.tensor([[[True, False]]])
    found = masked_least_squares(zero, torch.zeros(1, 2, 1).double(), start, mask, 0.01)
    assert found.tolist() == [[[1.0, 0.0]]]
