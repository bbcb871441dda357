"""Claim: the cost a weight does not grow with the model, and the memory beyond the masks is small.

    python benchmarks/growth.py [--millions 1 10 100 1000] [--plot growth]

Each size in a process of its own, so that its peak memory is its own: what the process holds at
most during `secateurs.select`, less what it held before and less the masks (one byte a weight).
"Reading" is one pass of ``abs().sum()`` in pieces of a million weights and through one buffer,
since on a whole tensor it would make a copy. Float32 weights in 16 tensors, normally distributed,
50%.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from inputs import layers, weights
from timing import machine, markdown, medians

import secateurs as sc

_PIECE = 1 << 20


def held() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(total: int, rounds: int) -> dict[str, float]:
    """Time and memory of one size, in this process."""
    sc.select(layers(2_000_000), 0.5)  # so that libraries are loaded and threads are started
    model = layers(total)
    before = held()
    if peak() - before > 1 << 20:  # then the peak would hide what comes
        before = peak()
    candidates = sc.select(model, 0.5)
    masks = sum(chosen.numel() for chosen in candidates.chosen.values())
    extra = max(peak() - before - masks, 0)
    del candidates
    pieces = [piece for w in weights(model) for piece in w.view(-1).split(_PIECE)]
    buffer = torch.empty(_PIECE)
    functions = {
        "reading": lambda: [torch.abs(p, out=buffer[: len(p)]).sum() for p in pieces],
        "ours": lambda: sc.select(model, 0.5),
    }
    return medians(functions, rounds) | {"extra": extra, "total": masks}


def plot(rows: list[dict[str, float]], stem: str) -> None:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    totals = [row["total"] for row in rows]
    left.loglog(totals, [row["ours"] for row in rows], "o-", label="select")
    left.loglog(totals, [row["reading"] for row in rows], "s--", label="reading the weights")
    left.set(xlabel="weights", ylabel="seconds", title="Time")
    left.legend(frameon=False)
    right.semilogx(totals, [row["extra"] / 2**20 for row in rows], "o-")
    right.axhline(16, linestyle=":", color="grey")
    right.set(xlabel="weights", ylabel="MiB beyond the masks", title="Memory", ylim=(0, 20))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    for ending in ("png", "svg"):
        figure.savefig(f"{stem}.{ending}", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", help="write STEM.png and STEM.svg")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.rounds)))
        return
    rows: list[dict[str, float]] = []
    for millions in arguments.millions:
        command = [sys.executable, __file__, "--one", str(millions * 10**6)]
        command += ["--rounds", str(arguments.rounds)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows.append(json.loads(output))
    cells = [
        (
            f"{row['total'] / 1e6:,.0f} M",
            f"{1e3 * row['reading']:,.1f}",
            f"{1e3 * row['ours']:,.1f}",
            f"{row['ours'] / row['reading']:.1f}",
            f"{row['ours'] / row['total'] * 1e9:.2f}",
            f"{row['extra'] / 2**20:.1f}",
        )
        for row in rows
    ]
    head = ("weights", "reading, ms", "ours, ms", "ratio", "ns a weight", "MiB beyond the masks")
    print(f"{torch.float32}, ratio 0.5; {machine()}\n")
    print(markdown(head, cells))
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
