"""Memory stays the same for any size, also of one tensor."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from secateurs.checkpoint.header import write_header

PROGRAM = """
import json, os, sys
from pathlib import Path
import torch
from secateurs.checkpoint import decompress_checkpoint, load_checkpoint, prune_checkpoint

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024

torch.set_num_threads(1)
torch.randn(8, 8).to(torch.bfloat16).abs().view(2, 32).sum(1, dtype=torch.float64)
for source, options in json.loads(sys.argv[1]):
    output = source + (".out.safetensors.zst" if "compress" in options else ".out.safetensors")
    child = os.fork()  # whose peak begins with what is in memory now
    if child:
        assert os.waitpid(child, 0)[1] == 0
        continue
    before = peak()
    prune_checkpoint(source, output, 0.5, **options)
    if "compress" in options:
        decompress_checkpoint(output, output + ".back.safetensors")
    print(before, peak() - before, flush=True)
    os._exit(0)
"""
# Of 200 MB each: what is pruned, with the shape of the tensors, and their number.
CASES = [
    ({}, (100, 1_000_000), 1),
    ({"granularity": "filter"}, (100, 1_000_000), 1),
    ({"granularity": "kernel", "scope": "layer"}, (1000, 1000, 100), 1),
    ({"score": "random", "seed": 0, "p_bern": 0.5}, (100, 1_000_000), 1),
    ({"compress": True}, (100, 1_000_000), 1),
    ({"scope": "layer", "p_bern": 0.5, "seed": 0}, (512, 512), 400),
]


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
def test_tensors_of_200_megabytes_take_a_few(tmp_path: Path) -> None:
    work = []
    for options, shape, number in CASES:
        source = tmp_path / f"{number} {shape}.safetensors"
        if not source.exists():
            tensors(source, shape, number)
        work.append((str(source), options))
    command = [sys.executable, "-c", PROGRAM, json.dumps(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for line, (options, *_) in zip(lines, CASES, strict=True):
        imports, above = map(float, line.split())
        assert above < 60, options  # of which some is torch's own, on first use
        assert imports + above < 1024, options
