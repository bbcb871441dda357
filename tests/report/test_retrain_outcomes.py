from dataclasses import replace
from pathlib import Path

from PIL import Image
from test_plot import texts

from retrain_rows import ROW
from secateurs.report import plot_rows
from secateurs.report.retrain_outcomes import describe_retrain, retrain_figure


def test_a_plot_names_what_it_cuts_off_and_nothing_touches_its_edge(tmp_path: Path) -> None:
    epoch = replace(ROW, split="validation", count=1200)
    tops = [(10.0, "dense"), *[(100.0, "dense")] * 9, *[(97.0, "retrain")] * 8, (40.0, "retrain")]
    rows = [replace(epoch, top1=t, phase=p, epoch=n) for n, (t, p) in enumerate([*tops, tops[-2]])]
    png, svg = plot_rows(rows, tmp_path / "curves")
    said = " " + " ".join(texts(svg))
    for text in (
        "weights ranked globally by magnitude",
        "1,200 images",
        "lowest while",
        "40.0, below",
    ):
        assert text in said
    assert "Validation top-1 (%)" in texts(svg) and "97.5" not in texts(svg)
    with Image.open(png) as image:
        edge = image.convert("L").crop((0, 0, 12, image.height))
    assert edge.getextrema() == (255, 255)  # labels stay off the left edge


def test_the_axes_and_the_lines_of_each_seed() -> None:
    rows = [
        replace(ROW, seed=s, phase=phase, epoch=n, split="validation", top1=90.0 + n, achieved=a)
        for s in (0, 1)
        for phase, a in (("dense", 0.0), ("retrain", 0.6))
        for n in (1, 2, 3)
    ]
    upper, lower = sorted(retrain_figure(rows, "Ours").axes, key=lambda a: -a.get_position().y0)
    assert (upper.get_ylabel(), lower.get_ylabel()) == ("Validation top-1 (%)", "Pruned (%)")
    assert lower.get_xlabel() == "Epoch" and lower.get_ylim() == (0, 100)
    *curves, dense = [(list(line.get_xdata()), list(line.get_ydata())) for line in upper.lines]
    assert curves == 2 * [([1, 2, 3], [91, 92, 93]), ([4, 5, 6], [91, 92, 93])]
    assert dense[1] == [93, 93] and [text.get_text() for text in upper.texts] == ["dense 93.00"]
    assert [list(line.get_ydata()) for line in lower.lines] == 2 * [[0] * 3, [60] * 3]


def test_a_single_epoch_is_a_point() -> None:
    rows = [replace(ROW, phase="retrain", epoch=1, split="validation", seed=s) for s in (0, 1)]
    for axes in retrain_figure(rows, "Ours").axes:
        drawn = [line for line in axes.lines if len(line.get_xdata())]
        assert [line.get_marker() for line in drawn] == ["o", "o"]


def test_a_description_names_the_data_by_the_last_part_of_their_paths() -> None:
    row = replace(ROW, phase="retrain", data="a/b/birds;a/c/fish")
    assert describe_retrain([row]).startswith("birds, tested on fish; cubic; ")
