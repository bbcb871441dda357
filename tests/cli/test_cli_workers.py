"""What the processes that read images say when the one that asked for them has gone."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, socket, sys
from multiprocessing import reduction

import torch
from secateurs.cli.loading import make_loader
from secateurs.zoo import LoadedData


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        shared = reduction.DupFd(os.open(os.devnull, os.O_RDONLY))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(shared._id[0])  # and is gone before it has said who it is
        os.close(shared.detach())  # one after the other: the first caller has been dealt with
        sys.excepthook(RuntimeError, RuntimeError("of its own"), None)
        return torch.ones(1), 7


if __name__ == "__main__":
    data = LoadedData(Images(), "images", "test", None)
    loader = make_loader(data=data, batch_size=1, workers=1, device=torch.device("cpu"))
    for images, labels in loader:
        print(images.tolist(), labels.tolist())
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no descriptors to hand over")


def test_a_worker_says_nothing_of_the_closed_pipe_of_its_parent_but_other_errors(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[1.0]] [7]\n"
    assert done.stderr == "RuntimeError: of its own\n"
