"""Draw the picture of docs/selection.md from a real selection.

python docs/_tools/selection_picture.py docs/assets/selection.png
"""

import sys

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes

from secateurs._tensors.float_keys import Scores, score_of
from secateurs.selection.tensor_counts import TensorCounts
from secateurs.selection.threshold import find_threshold

COLOURS = {"below": "#7fb8b0", "inside": "#e0a030", "above": "#d9d9d9"}


def main(path: str) -> None:
    torch.manual_seed(0)
    weights = [torch.randn(1 << 20) * scale for scale in (0.01, 0.02, 0.05)]
    counts = TensorCounts([Scores(str(i), w, True) for i, w in enumerate(weights)])
    k = counts.total // 2
    low, high = (score_of(key, counts.dtype) for key in counts.guess(k))
    found = find_threshold(counts, k)
    threshold = score_of(found.key if found else 0, counts.dtype)
    magnitudes = torch.cat(weights).abs().numpy()

    figure, (whole, near) = pyplot.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    edges = np.geomspace(1e-5, 0.25, 160)
    histogram(whole, magnitudes, edges, low, high)
    whole.set(xscale="log", xlabel="|w|", ylabel="weights", title="One pass over all weights")
    whole.annotate(
        "below: marked\non the way", (low / 9, 0), (0.10, 0.62), textcoords="axes fraction"
    )
    whole.annotate("above: nothing\nto do", (0.1, 0), (0.82, 0.62), textcoords="axes fraction")
    whole.annotate(
        f"the range from\n{counts.sizes.sample:,} samples",
        (threshold, whole.get_ylim()[1] * 0.98),
        (0.30, 0.84),
        textcoords="axes fraction",
        arrowprops={"arrowstyle": "-", "color": "grey"},
    )
    width = high - low
    inside = int(((magnitudes >= low) & (magnitudes <= high)).sum())
    histogram(near, magnitudes, np.linspace(low - width / 3, high + width / 3, 100), low, high)
    near.axvline(threshold, color="black", linewidth=1)
    near.annotate(
        "the k-th smallest", (threshold, 0), (threshold + width / 40, near.get_ylim()[1] * 1.02)
    )
    share = 100 * inside / len(magnitudes)
    near.set(xlabel="|w|", title=f"The range: {share:.1f}% of them, kept and settled")
    near.set_ylim(0, near.get_ylim()[1] * 1.1)
    for axes in (whole, near):
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_yticks([])
    figure.savefig(path, dpi=150)


def histogram(axes: Axes, values: np.ndarray, edges: np.ndarray, low: float, high: float) -> None:
    counts, _ = np.histogram(values, edges)
    middles = (edges[1:] + edges[:-1]) / 2
    for name, part in (
        ("below", middles < low),
        ("inside", (middles >= low) & (middles <= high)),
        ("above", middles > high),
    ):
        axes.bar(edges[:-1][part], counts[part], np.diff(edges)[part], align="edge",
                 color=COLOURS[name], linewidth=0)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1])
