"""Claim: pruning a checkpoint costs at most two and a half times what copying it costs.

A file of random weights of about the size asked for, pruned at a half, beside copies of the same
file: with ``shutil.copyfile``, with ``cp``, and with the reads and writes of pruning alone. The
fastest of them is the copy that counts. Fair:

* each run starts with none of the input in the page cache (``posix_fadvise`` with DONTNEED after an
  fsync), and its output does not exist;
* each run ends when its output is on the disk (fsync of the file), not in the page cache;
* in turns, so that a slow minute of the disk is everybody's; medians; and each in a process of its
  own, whose peak of memory is the one shown.

    python benchmarks/checkpoint.py [--gigabytes 1] [--rounds 3] [--dtype float32] [--folder DIR]
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from timing import machine

from secateurs.checkpoint import decompress_checkpoint, prune_checkpoint
from secateurs.checkpoint.contents import NAMES
from secateurs.checkpoint.file_blocks import Buffers, write_blocks
from secateurs.checkpoint.header import write_header

ROWS = 4096


def write_weights(path: Path, size: int, dtype: torch.dtype) -> None:
    """Layers of 4096 x 4096, each with a scale of its own, as trained networks have."""
    one = ROWS * ROWS * dtype.itemsize
    layers = max(round(size / one), 1)
    described = [
        (f"layers.{i}.mlp.weight", NAMES[dtype], (ROWS, ROWS), i * one, (i + 1) * one)
        for i in range(layers)
    ]
    with path.open("wb") as file:
        file.write(write_header(described, {"format": "pt"}))
        generator = torch.Generator().manual_seed(0)
        for i in range(layers):
            for _ in range(16):
                values = torch.empty(ROWS * ROWS // 16, dtype=torch.float32)
                values.normal_(0, 0.02 * (1 + i % 5), generator=generator)
                file.write(memoryview(values.to(dtype).view(torch.uint8).numpy()))
        file.flush()
        os.fsync(file.fileno())


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def copy(source: Path, output: Path) -> None:
    shutil.copyfile(source, output)
    sync(output)


def copy_with_cp(source: Path, output: Path) -> None:
    subprocess.run(["cp", str(source), str(output)], check=True)
    sync(output)


def copy_as_pruning_does(source: Path, output: Path) -> None:
    """Through the same buffer, and with the same words to the kernel about what comes next."""
    with Buffers().reader(source) as reader, output.open("wb", buffering=0) as new:
        write_blocks(new, 0, reader.blocks(0, source.stat().st_size))
        os.fsync(new.fileno())


METHODS = {
    "copy (shutil.copyfile)": copy,
    "copy (cp)": copy_with_cp,
    "copy (read and write as prune does)": copy_as_pruning_does,
    "prune": lambda source, output: prune_checkpoint(source, output, 0.5),
    "prune, layer by layer": lambda source, output: prune_checkpoint(
        source, output, 0.5, scope="layer"
    ),
    "prune, p_bern 0.5": lambda source, output: prune_checkpoint(source, output, 0.5, 0.5, seed=0),
    "prune, filters": lambda source, output: prune_checkpoint(
        source, output, 0.5, granularity="filter"
    ),
    "prune --compress": lambda source, output: prune_checkpoint(source, output, 0.5, compress=True),
    "prune --decompress": decompress_checkpoint,
}


def peak_memory() -> float:
    """MiB at most so far; not from getrusage, which remembers the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def measure(name: str, source: Path, output: Path) -> None:
    """In a process of its own: seconds, those of the processor, and the peak of memory."""
    torch.set_num_threads(1)
    before = peak_memory()
    began, worked = time.perf_counter(), time.process_time()
    METHODS[name](source, output)
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    print(seconds, work, peak_memory(), peak_memory() - before)


def run(name: str, source: Path, output: Path) -> list[float]:
    if name == "prune --compress":
        output = output.with_name(f"{output.name}.zst")
    output.unlink(missing_ok=True)
    forget(source)
    words = [sys.executable, __file__, "--measure", name, str(source), str(output)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in said.split()]


def compare(names: list[str], source: Path, folder: Path, rounds: int) -> dict[str, np.ndarray]:
    output = folder / "output.safetensors"
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    compressed = folder / "compressed.safetensors.zst"
    if "prune --decompress" in names:
        prune_checkpoint(source, compressed, 0.5, compress=True)
    for _ in range(rounds):
        for name in names:
            given = compressed if name == "prune --decompress" else source
            found[name].append(run(name, given, output))
    if compressed.exists():
        ratio = compressed.stat().st_size / source.stat().st_size
        print(f"compressed at a half: {100 * ratio:.1f}% of the input's size")
    return {name: np.median(np.array(rows), axis=0) for name, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--folder", type=Path, help="where to write; default the system's")
    parser.add_argument("--only", nargs="*", default=[], help="parts of the methods' names")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        name, source, output = arguments.measure
        measure(name, Path(source), Path(output))
        return
    wanted = ["copy", *arguments.only]
    names = [n for n in METHODS if not arguments.only or any(part in n for part in wanted)]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        source = folder / "source.safetensors"
        write_weights(source, int(arguments.gigabytes * 1e9), getattr(torch, arguments.dtype))
        size = source.stat().st_size
        found = compare(names, source, folder, arguments.rounds)
    print(f"{size / 1e9:.2f} GB of {arguments.dtype}; median of {arguments.rounds}; {machine()}\n")
    print("| method | seconds | MB/s | of the copy | of the processor | peak MiB | after imports |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    fastest = min(seconds for name, (seconds, *_) in found.items() if name.startswith("copy"))
    for name, (seconds, work, peak, above) in found.items():
        print(
            f"| {name} | {seconds:.2f} | {size / 1e6 / seconds:.0f} | {fastest / seconds:.2f} "
            f"| {work:.2f} | {peak:.0f} | +{above:.0f} |"
        )


if __name__ == "__main__":
    main()
