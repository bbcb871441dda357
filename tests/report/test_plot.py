import itertools
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from result_rows import make_row
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.report import plot_rows
from secateurs.results import Row

SVG = "{http://www.w3.org/2000/svg}"


def curve(end: float = 5.0, **names: object) -> list[Row]:
    return [make_row(n / 10, 80 - (80 - end) * (n / 7) ** 2, **names) for n in range(8)]


def texts(svg: Path) -> dict[str, float]:
    """Each text of a figure and how far down it stands, in points."""
    found: dict[str, float] = {}
    for element in ElementTree.parse(svg).iter(f"{SVG}text"):
        place = re.search(r"translate\(\S+ (\S+?)\)", element.get("transform", ""))
        found["".join(element.itertext())] = float(place[1] if place else element.get("y") or 0)
    return found


def test_writes_a_png_and_an_svg_with_text_as_text(tmp_path: Path) -> None:
    rows = curve(granularity="weight") + curve(20.0, granularity="kernel")
    png, svg = plot_rows(rows, tmp_path / "new" / "lite0.v1", title="A $title$ <here>")
    assert (png.name, svg.name) == ("lite0.v1.png", "lite0.v1.svg")
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert image.width > 1000 and len(image.convert("RGB").getcolors(2**24) or []) > 50
    said = texts(svg)
    for text in ("weight", "kernel", "dense (80.0)", "A $title$ <here>", "Top-1 accuracy (%)"):
        assert text in said, text
    assert "Weights pruned (%)" in said
    assert any("shaded: 95% interval" in text for text in said)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [png.name, svg.name]


def test_the_same_rows_give_the_same_files_also_in_another_process(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in plot_rows(curve(), tmp_path / "a")]
    program = (
        "import sys; from secateurs.report import plot_rows; from secateurs.results import Row\n"
        "import test_plot; plot_rows(test_plot.curve(), sys.argv[1])"
    )
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "b")],
        check=True,
        env={"PYTHONPATH": f"{here}:{here.parent}", "MPLBACKEND": "svg", "HOME": str(tmp_path)},
    )
    assert [(tmp_path / f"b{end}").read_bytes() for end in (".png", ".svg")] == first
    assert b"<dc:date>" not in first[1]


def test_no_state_of_pyplot_is_touched(tmp_path: Path) -> None:
    program = (
        "import sys, matplotlib; from secateurs.report.style import RC\n"
        "from secateurs.report import plot_rows; import test_plot\n"
        "before = [matplotlib.rcParams[name] for name in RC]\n"
        "plot_rows(test_plot.curve(), sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert [matplotlib.rcParams[name] for name in RC] == before"
    )
    here = Path(__file__).parent
    subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "b")],
        check=True,
        env={"PYTHONPATH": f"{here}:{here.parent}", "HOME": str(tmp_path)},
    )


def test_labels_of_lines_that_end_together_do_not_touch(tmp_path: Path) -> None:
    scores = ("magnitude", "gradient", "taylor", "random")
    rows = [row for i, score in enumerate(scores) for row in curve(5 + i / 3, score=score)]
    _, svg = plot_rows(rows, tmp_path / "a")
    said = texts(svg)
    heights = sorted(said[score] for score in scores)
    assert all(b - a > 10 for a, b in itertools.pairwise(heights))
    # In the order of the lines: the highest line has the highest label (svg counts downwards).
    assert sorted(scores, key=lambda score: -said[score]) == list(scores)


def test_each_model_has_its_dense_line_and_the_figure_grows_with_labels(tmp_path: Path) -> None:
    rows = [
        row
        for model in ("torchvision:squeezenet1_1", "timm:tf_efficientnet_lite0", "timm:lite1")
        for granularity in ("weight", "kernel")
        for scope in ("global", "layer")
        for score in ("magnitude", "random")
        for row in curve(model=model, granularity=granularity, scope=scope, score=score)
    ]
    _, svg = plot_rows(rows, tmp_path / "a")
    said = texts(svg)
    labels = [text for text in said if re.match(r"(squeeze|tf_|lite1).*, ", text)]
    assert sum("dense (80.0)" in label for label in labels) == 3
    assert len(labels) == 27
    heights = sorted(said[label] for label in labels)
    assert all(b - a > 10 for a, b in itertools.pairwise(heights))
    tall = float((ElementTree.parse(svg).getroot().get("height") or "").removesuffix("pt"))
    assert heights[0] > 0 and heights[-1] < tall


def test_the_ratio_asked_for_can_be_the_axis(tmp_path: Path) -> None:
    _, svg = plot_rows(curve(granularity="kernel"), tmp_path / "a", x="p_prune")
    assert "Pruning ratio asked for (% of units)" in texts(svg)
    with pytest.raises(InvalidArgumentError, match='give "achieved" or "p_prune"'):
        plot_rows(curve(), tmp_path / "a", x="ratio")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "rows",
    [
        [make_row(0.0)],
        [make_row(0.5)],
        [make_row(0.5, 0.0), make_row(0.9, 0.0)],
        [make_row(0.0, 100.0), make_row(0.5, 100.0)],
        [make_row(n / 100) for n in range(100)],
        [make_row(0.5, p_bern=0.0, achieved=0.0)],
    ],
)
def test_odd_rows_still_make_a_figure(tmp_path: Path, rows: list[Row]) -> None:
    for path in plot_rows(rows, tmp_path / "a"):
        assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("achieved", "last"), [(0.89998, "90"), (0.561, "60"), (0.1 + 0.2, "30"), (1.0, "100")]
)
def test_the_axis_ends_at_a_labelled_tick(tmp_path: Path, achieved: float, last: str) -> None:
    ends = [make_row(0.0, 99.0), make_row(0.9, 97.0, achieved=achieved)]
    _, svg = plot_rows(
        [replace(row, top1_low=row.top1, count=10**6) for row in ends], tmp_path / "a"
    )
    numbers = [text for text in texts(svg) if re.fullmatch(r"[\d.]+", text)]
    assert last in numbers
    # A decimal would not fit between the edge and the axis.
    assert "98" in numbers and not any("." in number for number in numbers)


def test_a_long_description_is_broken_into_lines(tmp_path: Path) -> None:
    rows = curve(layers=";".join(["attention", "conv2d", "linear"] * 6))
    _, svg = plot_rows(rows, tmp_path / "a")
    lines = [text for text in texts(svg) if len(text) > 60]
    assert len(lines) >= 2 and max(map(len, lines)) < 125


def test_refuses_no_rows_and_a_folder_that_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no rows"):
        plot_rows([], tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match="cannot make the folder"):
        plot_rows(curve(), tmp_path / "file" / "a")


TESTS = Path(__file__).resolve().parent.parent
SETTINGS = """
text.usetex: True
figure.figsize: 1, 1
savefig.bbox: tight
savefig.dpi: 5
path.sketch: 1, 100, 2
lines.linewidth: 40
svg.fonttype: path
font.size: 60
axes.prop_cycle: cycler('color', ['red'])
"""
DRAW = """
import os, sys, warnings
warnings.simplefilter("error")
from test_plot import curve
from secateurs.report import plot_rows
plot_rows(curve(), "here")
import matplotlib
print(matplotlib.rcParams["text.usetex"], os.environ["MPLBACKEND"])
"""


def test_settings_from_outside_change_nothing(tmp_path: Path) -> None:
    plot_rows(curve(), tmp_path / "expected")
    (tmp_path / "matplotlibrc").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-c", DRAW],
        cwd=tmp_path,
        # What a notebook sets for the programs that it starts; nothing of that name is installed.
        env=os.environ
        | {
            "MPLBACKEND": "module://of_a_notebook.backend_inline",
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "report")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True module://of_a_notebook.backend_inline\n"  # they are the caller's
    for suffix in (".png", ".svg"):
        drawn, expected = (tmp_path / f"{name}{suffix}" for name in ("here", "expected"))
        assert drawn.read_bytes() == expected.read_bytes()


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path) -> None:
    rows = [make_row(0.5, top1_low=math.nan, top1_high=math.nan)]  # as another tool may write it
    with pytest.raises(FailureError, match=r"^cannot draw .*here: cannot convert") as caught:
        plot_rows(rows, tmp_path / "here")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert list(tmp_path.iterdir()) == []


def test_letters_that_no_font_has_are_drawn_as_boxes(tmp_path: Path) -> None:
    _, svg = plot_rows(curve(), tmp_path / "letters", title="模型 \U000f0000")
    assert "模型 \U000f0000" in texts(svg)


def test_a_path_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"the plots need a name.*write plot"):
        plot_rows([make_row(0.0), make_row(0.5)], ".")
