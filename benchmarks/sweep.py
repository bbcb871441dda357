"""Claim: a sweep of eight ratios costs its forward passes, and beyond them what one run costs.

The command ``secateurs sweep`` with eight ratios, as a process of its own, beside

* the bound: one start-up (the same command with one ratio whose row is on disk already, so that it
  imports, loads the network, lists the images, selects, prints and plots, and evaluates nothing)
  + one pass of reading and decoding (the loader of the command, its workers included, and nobody
  who uses the batches) + eight forward passes over tensors that are in memory already, with pruned
  weights, the same batches, threads, and parts of batches that suit the caches;
* the bound with ``model(batch)`` for the forward passes, as people write it;
* eight commands with one ratio each.

In turns, medians. At the end one more sweep with time stamps shows where its time goes.

    python benchmarks/sweep.py --arch torchvision:squeezenet1_1 --weights FILE --data FOLDER
        [--limit 300] [--rounds 3] [--batch-size 64] [--img-size 224] [--workers 1] [--device cpu]
        [--repeat 1]

Where decoding takes longer than a forward pass:

    python benchmarks/sweep.py --arch torchvision:shufflenet_v2_x0_5 --img-size 64 --data FOLDER
        --repeat 10

and any network on a GPU with ``--device cuda``, where the default of ``--workers`` is one a core,
up to eight. ``--repeat`` reads every image of a folder with ``images.csv`` so many times.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timing import machine

import secateurs as sc
from secateurs.cli.loading import make_loader, pick_device
from secateurs.evaluation.forward import Forward
from secateurs.zoo import load_data, load_model

RATIOS = ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")
BOUND = ("start-up", "reading and decoding", "forward passes")
SWEEP, SINGLE = "one sweep of eight ratios", "eight runs of one ratio"
WHOLE = "the same passes as model(batch)"


class Parts:
    """What the bound is made of, measured in this process and in one that evaluates nothing."""

    def __init__(self, options: argparse.Namespace, finished: list[str]):
        torch.manual_seed(0)
        self.finished, self.device = finished, pick_device(options.device)
        loaded = load_model(options.arch, weights=options.weights, img_size=options.img_size)
        images = load_data(options.data, model=loaded, limit=options.limit)
        self.count, self.model = len(images.dataset), loaded.model.to(self.device)
        self.loader = make_loader(
            images, batch_size=options.batch_size, workers=options.workers, device=self.device
        )
        self.batches = [batch.to(self.device) for batch, _ in self.loader]
        self.forward = Forward(self.model, self.device, amp=False, warn=print)
        self._pass(self.forward, 1)  # libraries choose and compile kernels at first sight

    def measure(self) -> dict[str, float]:
        """Seconds of each part of the bound, and of the forward passes as people write them."""
        seconds = {
            "start-up": timed(partial(run, self.finished)),
            "reading and decoding": timed(lambda: [len(labels) for _, labels in self.loader]),
            "forward passes": 0.0,
            WHOLE: 0.0,
        }
        for ratio in map(float, RATIOS):
            with sc.pruned(self.model, ratio):
                seconds["forward passes"] += timed(partial(self._pass, self.forward))
                seconds[WHOLE] += timed(partial(self._pass, self.model))
        return seconds

    @torch.no_grad()
    def _pass(self, forward: Callable[[torch.Tensor], object], batches: int | None = None) -> None:
        for batch in self.batches[:batches]:
            forward(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def repeated(data: Path, times: int, folder: Path) -> Path:
    """A folder that lists the images of ``data`` so many times, each time under other names."""
    with (data / "images.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    (folder / "images").mkdir(parents=True)
    with (folder / "images.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(listed[0]))
        table.writeheader()
        for number in range(times):
            for row in listed:
                name, again = f"{row['ImageId']}.png", f"{number}-{row['ImageId']}"
                shutil.copyfile(data / "images" / name, folder / "images" / f"{again}.png")
                table.writerow(row | {"ImageId": again})
    return folder


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def run(words: list[str]) -> None:
    subprocess.run(words, check=True, capture_output=True)


def command(options: argparse.Namespace, folder: Path, *ratios: str) -> list[str]:
    words = ["sweep", "--arch", options.arch, "--data", options.data, "--device", options.device]
    words += ["--batch-size", str(options.batch_size), "--output", str(folder)]
    for name in ("weights", "limit", "img_size", "workers"):
        if getattr(options, name) is not None:
            words += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    return [*words, "--p-prune", *ratios]


def measure(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    program = [sys.executable, "-m", "secateurs"]
    finished = program + command(options, folder / "finished", "0")
    sweep = [*program, *command(options, folder / "sweep", *RATIOS), "--overwrite"]
    single = [[*program, *command(options, folder / "1", r), "--overwrite"] for r in RATIOS]
    run(finished)
    parts = Parts(options, finished)
    print(f"{options.arch}, {parts.count} images, batches of {options.batch_size}; {machine()}\n")
    seconds: list[dict[str, float]] = []
    for number in range(options.rounds):
        seconds.append(
            {
                SWEEP: timed(partial(run, sweep)),
                **parts.measure(),
                SINGLE: sum(timed(partial(run, words)) for words in single),
            }
        )
        said = ", ".join(f"{name} {took:.1f}" for name, took in seconds[-1].items())
        print(f"round {number + 1}: {said}", file=sys.stderr)
    return {name: statistics.median(each[name] for each in seconds) for name in seconds[0]}


def stamped(words: list[str]) -> dict[str, float]:
    """Run a command with time stamps in it; returns what each part took."""
    began = time.time()
    asked = [sys.executable, __file__, "--stamp", *words]
    lines = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    ended, marks = time.time(), json.loads(lines[-1])
    first, last = marks.pop("first"), marks.pop("last")
    inside = sum(marks.values()) - marks["selecting candidates"]
    return {
        "start-up, until the first batch is asked for": first
        - began
        - marks["selecting candidates"],
        **marks,
        "bookkeeping between batches": last - first - inside,
        "table, plot and exit": ended - last,
    }


def stamp(words: list[str]) -> None:
    """Be the command, with time stamps in it; the last line of stdout is what they say."""
    from secateurs.cli import main as be_command
    from secateurs.evaluation import evaluation_loop
    from secateurs.evaluation.evaluation_loop import EvaluationLoop
    from secateurs.evaluation.forward import Forward
    from secateurs.evaluation.metrics import Tally
    from secateurs.evaluation.pruned_model import Variants

    marks: dict[str, float] = {}

    def watch(owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                marks[label] = marks.get(label, 0.0) + time.perf_counter() - began

        setattr(owner, name, watched)

    def waited(*args: Any) -> Any:
        batches = read(*args)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            took = time.perf_counter() - began
            marks["waiting for batches"] = marks.get("waiting for batches", 0.0) + took
            if batch is None:
                return
            yield batch

    def whole(self: EvaluationLoop) -> None:
        marks["first"] = time.time()
        everything(self)
        marks["last"] = time.time()

    read, everything = evaluation_loop.read, EvaluationLoop.run
    evaluation_loop.read, EvaluationLoop.run = waited, whole
    watch(Variants, "__init__", "selecting candidates")
    watch(Variants, "become", "putting masks on weights")
    watch(Forward, "to_device", "forward passes and counting")
    watch(Forward, "__call__", "forward passes and counting")
    watch(Tally, "add", "forward passes and counting")
    try:
        be_command(words)
    finally:
        print("\n" + json.dumps(marks))


def report(found: dict[str, float], inside: dict[str, float]) -> None:
    bound = sum(found[name] for name in BOUND)
    print("| what | seconds | of the bound |\n|---|---:|---:|")
    rows = {name: found[name] for name in BOUND} | {"**bound**, the sum of these": bound}
    rows |= {name: found[name] for name in (SWEEP, SINGLE, WHOLE)}
    rows["bound with these"] = bound - found["forward passes"] + found[WHOLE]
    for name, seconds in rows.items():
        print(f"| {name} | {seconds:.2f} | {seconds / bound:.2f} |")
    total = sum(inside.values())
    print(f"\nWhere the time goes, {total:.2f} s in a sweep with time stamps:\n")
    print("| part of the sweep | seconds | share |\n|---|---:|---:|")
    for name, seconds in inside.items():
        print(f"| {name} | {seconds:.2f} | {100 * seconds / total:.1f}% |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", required=True)
    parser.add_argument("--weights", default="random", help="a file, or a name")
    parser.add_argument("--data", required=True)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--img-size", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.repeat > 1:
            data = repeated(Path(options.data), options.repeat, folder / f"{options.repeat}-times")
            options.data = str(data)
        found = measure(options, folder)
        words = [*command(options, folder / "stamped", *RATIOS), "--overwrite"]
        report(found, stamped(words))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stamp"]:
        stamp(sys.argv[2:])
    else:
        main()
