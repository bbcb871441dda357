"""Draw pictures of docs/ from what is published in results/.

python docs/_tools/pictures_from_results.py surrogates acceleration checkpoints integrations
"""

import csv

from drawing import BLUE, GREEN, GREY, ORANGE, PALE, ROOT, SKY, blank, rows_of_names, write_asked
from matplotlib.figure import Figure

from secateurs.report.figure import add_axes
from secateurs.report.grouping import split_benchmarks
from secateurs.report.transfer_groups import BenchmarkRows
from secateurs.results import TransferRow, read_rows

TRANSFER, SPEED = ROOT / "results" / "transfer", ROOT / "results" / "speed" / "README.md"
RECIPES = {"dwp": (BLUE, "o"), "rapa": (ORANGE, "s"), "mup": (GREEN, "^")}

ATTACKS = {
    "imagenet_compatible_single": "ImageNet, each network alone, the plain attack",
    "cifar10_single": "CIFAR-10, each network alone, the plain attack",
    "cifar10": "CIFAR-10, three networks together",
    "cifar10_input_diversity": "CIFAR-10, three together, input diversity",
    "imagenet_compatible": "ImageNet, two together, input diversity",
}
"""Files in results/transfer, from attacks without any other diversity to those that have much."""

NETWORKS = {
    "vit": "vit_small_patch16_224",
    "lenet5": "LeNet-5",
    "lite0": "EfficientNet-Lite0",
    "resnet20": "ResNet-20",
    "lenet300": "LeNet-300-100",
}


def table_below(text: str, start: str) -> list[dict[str, str]]:
    """The first Markdown table after a text, as a dictionary for each row."""
    lines = text[text.index(start) :].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows: list[list[str]] = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def surrogates() -> Figure:
    """What each recipe adds to the success of an attack, from plain to diverse attacks."""
    figure = blank(
        480, 235, "Targeted success on networks that were not attacked: points more than plain",
        ["images that chose no setting; bars: 95% interval over images; results/transfer"],
    )  # fmt: skip
    axes = add_axes(figure, 218, 36, 250, 192)
    rows_of_names(axes, list(ATTACKS.values()))
    axes.axvline(0, color=GREY, linewidth=0.9)
    seen: set[str] = set()
    for number, stem in enumerate(ATTACKS):
        benchmark = next(
            one
            for one in split_benchmarks(read_rows(TRANSFER / f"{stem}.csv", TransferRow))
            if one.rows[0].search_part == "report"
        )
        for recipe, difference, low, high in differences(benchmark):
            colour, marker = RECIPES[recipe]
            up = number + 0.22 * (list(RECIPES).index(recipe) - 1)
            label = "" if recipe in seen else recipe
            axes.plot([low, high], [up, up], color=colour, linewidth=1.3)
            axes.plot([difference], [up], marker, color=colour, markersize=5, label=label)
            seen.add(recipe)
    axes.set_xlabel("Points of targeted success more than with plain surrogates")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return figure


def differences(benchmark: BenchmarkRows) -> list[tuple[str, float, float, float]]:
    """Each recipe with its difference to plain over all hold-outs, and the interval."""
    found = [(benchmark.lines[i], one) for i, (one, _) in benchmark.comparisons("targeted").items()]
    over_all = [pair for pair in found if pair[0].surrogates is None] or found
    return [(line.variant.split()[0], one.difference, one.low, one.high) for line, one in over_all]


def acceleration() -> Figure:
    """How many times faster whole networks are, chosen by measurement and all sparse."""
    rows = [
        row
        for row in table_below(SPEED.read_text(encoding="utf-8"), "## Sparse inference")
        if (row["batch"], row["threads"]) == ("1", "1")
    ]
    figure = blank(
        480, 240, "One image, one thread: times as fast as the dense network",
        ["each layer pruned to the ratio by magnitude; results/speed/README.md"],
    )  # fmt: skip
    axes = add_axes(figure, 122, 36, 340, 196)
    rows_of_names(axes, list(NETWORKS.values()))
    axes.axvline(1, color=GREY, linewidth=0.9, dashes=(5, 3))
    for number, network in enumerate(NETWORKS):
        for zeros, colour, up in (("90%", SKY, -0.17), ("95%", BLUE, 0.17)):
            row = next(row for row in rows if (row["network"], row["zeros"]) == (network, zeros))
            fast, naive = float(row["accelerated"]), float(row["all CSR"])
            first = number == 0
            axes.barh(
                number + up, fast - 1, 0.3, left=1, color=colour,
                label=f"accelerate, {zeros} zeros" if first else None,
            )  # fmt: skip
            right = max(fast, naive) if abs(fast - naive) < 0.05 else max(fast, 1)
            axes.text(right + 0.03, number + up, f"{fast:.2f}", va="center", fontsize=7.5)
            label = "every layer sparse" if first and zeros == "95%" else None
            axes.plot([naive], [number + up], "X", color=ORANGE, markersize=5, label=label)
    axes.set_xlim(0.7, 2.6)
    axes.set_xlabel("Times as fast as dense (dashed: no gain)")
    axes.legend(frameon=False, loc="lower right", fontsize=8)
    return figure


def checkpoints() -> Figure:
    """How long pruning a file takes beside copying it, and the memory that it takes."""
    text = SPEED.read_text(encoding="utf-8")
    tables = {
        "1 GB": table_below(text, "--gigabytes 1`"),
        "8 GB": table_below(text, "--gigabytes 8 "),
    }
    names = {
        "copy (cp)": "cp",
        "copy (read and write as prune does)": "the fastest copy",
        "prune": "secateurs prune",
        "prune, filters": "... whole filters",
        "prune, p_bern 0.5": "... half of the candidates",
    }
    figure = blank(
        480, 190, "Files are pruned about as fast as they are copied, in the same memory",
        ["seconds, from disk to disk; MiB beyond Python and torch; results/speed/README.md"],
    )  # fmt: skip
    for place, (size, rows) in enumerate(tables.items()):
        axes = add_axes(figure, 122 + 184 * place, 36, 140, 128)
        rows_of_names(axes, list(names.values()) if place == 0 else [""] * len(names))
        axes.set_title(f"{size} of float32, half pruned", fontsize=8.5, loc="left", pad=5)
        longest = max(float(row["seconds"]) for row in rows if row["method"] in names)
        for number, method in enumerate(names):
            row = next(row for row in rows if row["method"] == method)
            seconds, own = float(row["seconds"]), method.startswith("prune")
            axes.barh(number, seconds, 0.6, color=BLUE if own else PALE)
            memory = f"{seconds:.1f} s" + f", {row['after imports']} MiB" * own
            axes.text(seconds + 0.02 * longest, number, memory, va="center", fontsize=7.5)
        axes.set_xlim(0, 1.35 * longest)
        axes.set_xlabel("Seconds")
    return figure


def integrations() -> Figure:
    """Targeted success of three packages' MI-FGSM, with surrogates as they are and diversified."""
    with (TRANSFER / "packages.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys(row["package"] for row in rows))
    figure = blank(
        480, 150, "Unchanged attacks of three packages: surrogates as they are, and diversified",
        ["MI-FGSM, 20 steps; 200 images of CIFAR-10; each of four networks attacked alone, "
         "scored on the three others"],
    )  # fmt: skip
    axes = add_axes(figure, 82, 36, 268, 106)
    rows_of_names(axes, names)
    for kind, label, colour, up in (
        ("plain", "plain", PALE, -0.19),
        ("diversified", "Diversified(net, 1, 0.05)", BLUE, 0.19),
    ):
        found = [float(row["success"]) for row in rows if row["surrogates"] == kind]
        places = [down + up for down in range(len(names))]
        bars = axes.barh(places, found, 0.34, color=colour, label=label)
        axes.bar_label(bars, [f"{value:.1f}" for value in found], padding=3, fontsize=7.5)
    axes.set_xlim(0, 44)
    axes.set_xlabel("Targeted success on networks that were not attacked (%)")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1.05), fontsize=7)
    return figure


if __name__ == "__main__":
    write_asked(
        {
            "surrogates": surrogates,
            "acceleration": acceleration,
            "checkpoints": checkpoints,
            "integrations": integrations,
        }
    )
