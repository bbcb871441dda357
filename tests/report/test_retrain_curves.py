from dataclasses import replace
from pathlib import Path

from PIL import Image
from test_plot import texts

from retrain_rows import ROW
from secateurs.report import plot_retrain


def test_a_plot_names_what_it_cuts_off_and_nothing_touches_its_edge(tmp_path: Path) -> None:
    epoch = replace(ROW, split="validation", count=1200)
    tops = [(10.0, "dense"), *[(100.0, "dense")] * 9, *[(97.0, "retrain")] * 8, (40.0, "retrain")]
    rows = [replace(epoch, top1=t, phase=p, epoch=n) for n, (t, p) in enumerate([*tops, tops[-2]])]
    png, svg = plot_retrain(rows, tmp_path / "curves")
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
