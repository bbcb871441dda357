"""Memory stays the same for any size, also of one tensor."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from secateurs.checkpoint.header import write_header

PROGRAM = """
import sys
from pathlib import Path
import torch
from secateurs.checkpoint import decompress_checkpoint, load_checkpoint, prune_checkpoint

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

torch.set_num_threads(1)
torch.randn(8, 8).to(torch.bfloat16).abs().view(2, 32).sum(1, dtype=torch.float64)
source, output, options = sys.argv[1], sys.argv[2], eval(sys.argv[3])
before = peak()
prune_checkpoint(source, output, 0.5, **options)
if options.get("compress"):
    decompress_checkpoint(output, output + ".back.safetensors")
print(before, peak() - before)
"""


def one_tensor(path: Path, shape: tuple[int, ...]) -> Path:
    """A single tensor of bfloat16."""
    count = torch.Size(shape).numel()
    with path.open("wb") as file:
        file.write(write_header([("fc.weight", "BF16", shape, 0, 2 * count)], None))
        piece = torch.randn(1 << 20).bfloat16().view(torch.uint8).numpy().tobytes()
        for start in range(0, 2 * count, len(piece)):
            file.write(piece[: 2 * count - start])
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (100, 1_000_000)),
        ({"granularity": "filter"}, (100, 1_000_000)),
        ({"granularity": "kernel", "scope": "layer"}, (1000, 1000, 100)),
        ({"score": "random", "seed": 0, "p_bern": 0.5}, (100, 1_000_000)),
        ({"compress": True}, (100, 1_000_000)),
    ],
    ids=str,
)
def test_a_tensor_of_200_megabytes_takes_a_few(tmp_path: Path, options, shape) -> None:
    source = one_tensor(tmp_path / "in.safetensors", shape)
    words = [sys.executable, "-c", PROGRAM, str(source), str(tmp_path / "out.safetensors")]
    done = subprocess.run([*words, repr(options)], capture_output=True, text=True, check=True)
    imports, above = map(float, done.stdout.split())
    assert above < 60  # of which some is torch's own, on first use
    assert imports + above < 1024
