from typing import Any

import pytest
import torch
from small_nets import Images, Net, loader, losses, network, outcome
from torch import Tensor, nn

from secateurs.errors import FailureError
from secateurs.evaluation import sweep
from secateurs.evaluation.forward import Forward

CPU_SAYS = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 64 bytes. Error code 12 (Cannot allocate memory)"
)


class Roomy(Net):
    """Has room for ``room`` images; remembers how many it was given."""

    def __init__(self, room: int, error: type[Exception] = torch.OutOfMemoryError, says: str = ""):
        super().__init__()
        self.load_state_dict(network().state_dict())
        self.room, self.error, self.says = room, error, says
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.room:
            raise self.error(self.says)
        return super().forward(images)


@pytest.mark.parametrize("room", [1, 2, 5, 7])
def test_batches_are_halved_until_they_fit_and_stay_halved(
    room: int, capfd: pytest.CaptureFixture[str]
) -> None:
    model, images = Roomy(room), Images()
    rows = sweep(model, loader(images), p_prune=[0, 0.5])
    largest = max(size for size in (8, 4, 2, 1) if size <= room)
    tried = [8, 4, 2, 1][: [8, 4, 2, 1].index(largest)]
    assert model.sizes[: len(tried)] == tried
    assert set(model.sizes[len(tried) :]) <= {largest, 6 % largest}
    assert images.reads == list(range(46))
    (whole, halved), (a, b) = (
        outcome(r) for r in (sweep(network(), loader(), p_prune=[0, 0.5]), rows)
    )
    assert [whole[1:], halved[1:]] == [a[1:], b[1:]]
    said = capfd.readouterr().err
    assert said.count("out of memory with") == len(tried)
    assert f"going on with {largest}" in said


def test_losses_do_not_depend_on_the_parts() -> None:
    expected = losses(sweep(network(), loader(), p_prune=[0, 0.5]))
    assert losses(sweep(Roomy(3), loader(), p_prune=[0, 0.5])) == pytest.approx(expected, rel=1e-6)


def test_not_even_one_image_is_a_failure_and_weights_are_put_back() -> None:
    model = Roomy(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FailureError, match="out of memory on cpu with a single image: use"):
        sweep(model, loader(), p_prune=[0.5, 0.9])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.sizes == [8, 4, 2, 1]


@pytest.mark.parametrize(
    "says",
    [
        CPU_SAYS,
        "CUDA error: out of memory",
        "MPS backend out of memory (MPS allocated: 18.04 GB)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_plain_runtime_errors_that_mean_it_are_understood(says: str) -> None:
    model = Roomy(4, RuntimeError, says)
    assert sweep(model, loader(), p_prune=[0.5])[0].count == 46
    assert max(model.sizes[1:]) == 4


def test_the_message_of_a_cpu_without_memory_is_known() -> None:
    class Huge(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            if len(images) > 4:
                torch.empty(2**60, dtype=torch.uint8)
            return super().forward(images.flatten(1))

    assert sweep(Huge(64, 7), loader(), p_prune=[0.5])[0].count == 46


@pytest.mark.parametrize(
    ("error", "says"),
    [(RuntimeError, "mat1 and mat2 shapes cannot be multiplied"), (ValueError, "unknown value")],
)
def test_other_errors_come_through(error: type[Exception], says: str) -> None:
    model: Any = Roomy(4, error, says)
    with pytest.raises(error, match=says):
        sweep(model, loader(), p_prune=[0.5])
    assert model.sizes == [8]


class Sizes(nn.Sequential):
    """Remembers how many images it was given at once."""

    def __init__(self, *layers: nn.Module):
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        return super().forward(images)


@pytest.mark.parametrize(
    ("side", "threads", "sizes"),
    [(512, 2, [4, 4, 2]), (512, 4, [8, 2]), (2048, 1, [4, 4, 2]), (64, 1, [10])],
)
def test_a_cpu_runs_parts_that_fit_into_its_caches(
    side: int, threads: int, sizes: list[int]
) -> None:
    before, model = torch.get_num_threads(), Sizes()
    images = torch.arange(10.0)[:, None, None, None].expand(10, 1, side, side)
    try:
        torch.set_num_threads(threads)
        logits = Forward(model, torch.device("cpu"), False, print)(images)
    finally:
        torch.set_num_threads(before)
    assert model.sizes == sizes
    assert logits[:, 0].tolist() == list(range(10))


def test_a_network_with_batch_statistics_gets_whole_batches() -> None:
    model = Sizes(nn.BatchNorm2d(1, track_running_stats=False)).eval()
    Forward(model, torch.device("cpu"), False, print)(torch.randn(10, 1, 1024, 1024))
    assert model.sizes == [10]
