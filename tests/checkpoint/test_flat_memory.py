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


def tensors(path: Path, shape: tuple[int, ...], number: int = 1) -> Path:
    """A file of so many tensors of bfloat16."""
    size = 2 * torch.Size(shape).numel()
    described = [
        (f"layers.{i}.weight", "BF16", shape, i * size, (i + 1) * size) for i in range(number)
    ]
    with path.open("wb") as file:
        file.write(write_header(described, None))
        piece = torch.randn(1 << 20).bfloat16().view(torch.uint8).numpy().tobytes()
        for start in range(0, number * size, len(piece)):
            file.write(piece[: number * size - start])
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
    check_peak(tensors(tmp_path / "in.safetensors", shape), options)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "options", [{"scope": "layer"}, {"scope": "layer", "p_bern": 0.5, "seed": 0}], ids=str
)
def test_thresholds_of_200_layers_take_no_more(tmp_path: Path, options) -> None:
    check_peak(tensors(tmp_path / "in.safetensors", (512, 512), 200), options)


def check_peak(source: Path, options) -> None:
    output = "out.safetensors.zst" if options.get("compress") else "out.safetensors"
    words = [sys.executable, "-c", PROGRAM, str(source), str(source.with_name(output))]
    done = subprocess.run([*words, repr(options)], capture_output=True, text=True, check=True)
    imports, above = map(float, done.stdout.split())
    assert above < 60  # of which some is torch's own, on first use
    assert imports + above < 1024
