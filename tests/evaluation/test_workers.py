"""Processes that read images and die: killed by the system, or for want of shared memory."""

import os
import signal
import sys
from pathlib import Path
from threading import Timer

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from secateurs.errors import FailureError
from secateurs.evaluation import accumulate_gradients, sweep
from secateurs.evaluation.batches import workers_watched
from secateurs.results import Results


class Deadly(Dataset[tuple[torch.Tensor, int]]):
    """Kills the process that reads the image in the middle, as the system does for memory."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if index == 9:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.ones(3), 0


# torch says it in whatever runs when the process dies, also once more while the loader is deleted.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_worker_is_one_line_and_progress_stays(tmp_path: Path) -> None:
    loader = DataLoader(Deadly(), batch_size=2, num_workers=1)
    with pytest.raises(FailureError, match=r"cannot go on \(it died\): .*num_workers=0"):
        sweep(nn.Linear(3, 2), loader, p_prune=[0, 0.5], output=tmp_path)
    with Results(tmp_path) as results:
        assert results.load_progress()
    with pytest.raises(FailureError, match="num_workers=0"):
        accumulate_gradients(nn.Linear(3, 2), loader)


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
        "dataloader's workers are out of shared memory.",
        "unable to write to file </torch_7_12_0>: No space left on device (28)",
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback:\nRuntimeError: "
        "unable to open shared memory object </torch_7_1> in read-write mode: No space left (28)",
        "unable to allocate shared memory(shm) for file </torch_7_1>: Success (0)",
    ],
)
def test_what_torch_says_of_full_shared_memory(text: str) -> None:
    with pytest.raises(FailureError, match=r"/dev/shm.* is full.*num_workers=0"), workers_watched():
        raise RuntimeError(text)


def test_torch_may_notice_a_dead_worker_while_its_death_is_reported() -> None:
    def notice(*_: object) -> None:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    before = signal.signal(signal.SIGUSR1, notice)
    try:
        with pytest.raises(FailureError, match="num_workers=0"), workers_watched():
            Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly")
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("text", ["mat1 and mat2 shapes cannot be multiplied", "CUDA error: x"])
def test_other_errors_stay_as_they_are(text: str) -> None:
    with pytest.raises(RuntimeError, match=text), workers_watched():
        raise RuntimeError(text)
