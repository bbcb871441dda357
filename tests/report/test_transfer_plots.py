import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from test_plot import texts

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.report import plot_transfer_curves, plot_transfer_heatmap
from secateurs.report.figure import SMALL, wrap
from secateurs.report.grouping import split_benchmarks
from secateurs.report.labels import text_width
from secateurs.report.style import variant_styles
from secateurs.report.transfer_curves import curve_panels
from secateurs.results import TransferRow
from transfer_rows import make_benchmark, make_transfer_row

Plot = Callable[..., list[Path]]
PLOTS = pytest.mark.parametrize("plot", [plot_transfer_heatmap, plot_transfer_curves])
DWP = "dwp 0.3 0.5"
NETWORKS = [
    "timm:convnextv2_femto.fcmae_ft_in1k",
    "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "torchvision:squeezenet1_1",
    "timm:tf_efficientnet_lite1",
]
SEVEN = ["plain", *(f"dwp 0.{n} 0.5" for n in range(1, 6)), "dwp 0.9 0.5 of a very long name"]


def hold_one_out(variants: list[str]) -> list[TransferRow]:
    return [
        row
        for left in NETWORKS
        for row in make_benchmark(
            variants=variants,
            surrogates=[";".join(name for name in NETWORKS if name != left)],
            targets=NETWORKS,
        )
    ]


CASES = {
    "one": make_benchmark(variants=["plain"], targets=NETWORKS[:1], seeds=1),
    "three": make_benchmark(variants=["plain", DWP, "mup 0.15", "noise"]),
    "seven": hold_one_out([*SEVEN, "noise"]),
    "pairs": make_benchmark(surrogates=NETWORKS, targets=NETWORKS[::-1]),
}


@PLOTS
def test_writes_a_png_and_an_svg(plot: Plot, tmp_path: Path) -> None:
    png, svg = plot(CASES["three"], tmp_path / "new" / "a.b", title="A $title$ <here>")
    assert (png.name, svg.name) == ("a.b.png", "a.b.svg")
    with Image.open(png) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert len(image.convert("RGB").getcolors(2**24) or []) > 50
    said = " ".join(texts(svg))
    for text in ("A $title$ <here>", "plain", DWP, "squeezenet1_1", "60 images of", "2 seeds"):
        assert text in said, text


@PLOTS
def test_the_same_rows_give_the_same_files(plot: Plot, tmp_path: Path) -> None:
    first, second = (plot(CASES["three"], tmp_path / name) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_panels_come_in_the_order_of_the_rows() -> None:
    """Sets are in another order in each process, and the same rows give the same files."""
    (benchmark,) = split_benchmarks(CASES["pairs"])
    _, *small = curve_panels(benchmark, "targeted")
    short = benchmark.short
    assert [panel.title for panel in small] == [
        [short[target], f"from {short[names]}"]
        for target in NETWORKS[::-1]
        for names in NETWORKS
        if names != target
    ]


@PLOTS
@pytest.mark.parametrize("case", list(CASES))
def test_texts_are_not_cut_off_and_do_not_overlap(plot: Plot, case: str, tmp_path: Path) -> None:
    png, svg = plot(CASES[case], tmp_path / case, title="Title")
    with Image.open(png) as image:
        grey = image.convert("L")
        box = grey.point(lambda value: 255 * (value < 250)).getbbox()
    assert box is not None
    left, top, right, bottom = box
    assert min(left, top, grey.width - right, grey.height - bottom) >= 4, box
    boxes = [box for box in map(_box, ElementTree.parse(svg).iter()) if box]
    assert len(boxes) > 8
    for (a, *one), (b, *other) in itertools.combinations(boxes, 2):
        apart = one[0] >= other[1] or other[0] >= one[1] or one[2] >= other[3] or other[2] >= one[3]
        assert apart, f"{a!r} and {b!r}"


def _box(element: ElementTree.Element) -> tuple[str, float, float, float, float] | None:
    """A text and where it stands: left, right, upper and lower end in points."""
    text, style = "".join(element.itertext()).strip(), element.get("style", "")
    place = element.get("transform", "")
    if not element.tag.endswith("}text") or not text or "rotate(-90" in place:
        return None
    number = re.search(r"([\d.]+)px", style)
    moved = re.search(r"translate\((\S+) (\S+?)\)", place)
    assert number
    x, y = (float(moved[1]), float(moved[2])) if moved else (0.0, 0.0)
    x, y = (x, y) if moved else (float(element.get("x", 0)), float(element.get("y", 0)))
    size = float(number[1])
    wide = text_width(text, size)
    if "middle" in style:
        x -= wide / 2
    elif "anchor: end" in style:
        x -= wide
    return text, x, x + wide, y - 0.72 * size, y


def test_a_cell_holds_success_the_difference_and_the_white_box(tmp_path: Path) -> None:
    rows = [
        make_transfer_row(text, variant=variant, target=target, role=role)
        for variant, text, white in (("plain", "1000", "1111"), ("ours", "1110", "0111"))
        for target, role, text in (
            ("timm:far", "holdout", text),
            ("timm:lite0", "whitebox", white),
        )
    ]
    _, svg = plot_transfer_heatmap(rows, tmp_path / "a")
    found = "".join(ElementTree.parse(svg).getroot().itertext()).split()
    numbers = [text for text in found if re.fullmatch(r"\(?[+-]?\d+\.\d\)?", text)]
    assert sorted(numbers) == sorted(["25.0", "(100.0)", "75.0", "+50.0", "(75.0)", "-25.0"])
    assert "colours from 0 to 80" in " ".join(texts(svg))


def test_curves_end_in_their_names_and_values(tmp_path: Path) -> None:
    rows = [
        make_transfer_row(text, variant=variant, step=step, target=target)
        for variant, late in (("plain", "1000"), (DWP, "1110"))
        for step, text in ((20, "0000"), (40, "1000"), (60, late))
        for target in ("timm:b", "timm:c")
    ] + [
        make_transfer_row("0000", variant="noise", target=target) for target in ("timm:b", "timm:c")
    ]
    _, svg = plot_transfer_curves(rows, tmp_path / "a")
    said = texts(svg)
    for text in ("plain (25.0)", f"{DWP} (75.0)", "noise (0.0)", "Mean over 2 hold-outs", "b", "c"):
        assert text in said, text
    assert said[f"{DWP} (75.0)"] < said["plain (25.0)"] < said["noise (0.0)"]


def test_one_hold_out_is_one_panel(tmp_path: Path) -> None:
    _, svg = plot_transfer_curves([make_transfer_row("0101", step=60)], tmp_path / "a")
    said = texts(svg)
    assert "squeezenet1_1" in said and not any("Mean" in text for text in said)


def test_many_pairs_are_drawn_a_target_each(tmp_path: Path) -> None:
    names = [f"timm:net{i}" for i in range(5)]
    rows = make_benchmark(surrogates=names, targets=names, variants=["plain", DWP], steps=20)
    _, svg = plot_transfer_curves(rows, tmp_path / "a")
    said = texts(svg)
    assert {f"net{i}" for i in range(5)} <= set(said)
    assert not any(text.startswith("from ") for text in said)


def test_hold_one_out_panels_say_where_the_attack_comes_from(tmp_path: Path) -> None:
    _, svg = plot_transfer_curves(CASES["seven"], tmp_path / "a")
    said = texts(svg)
    assert "from all others" in said and "Mean over 4 hold-outs, 4 groups of surrogates" in said


def test_untargeted_success_can_be_drawn(tmp_path: Path) -> None:
    _, svg = plot_transfer_curves(CASES["three"], tmp_path / "a", outcome="untargeted")
    assert "Untargeted success (%)" in texts(svg)
    _, svg = plot_transfer_heatmap(CASES["three"], tmp_path / "b", outcome="untargeted")
    assert any(text.startswith("Untargeted success in percent") for text in texts(svg))


@PLOTS
def test_other_protocols_are_figures_of_their_own(plot: Plot, tmp_path: Path) -> None:
    rows = [make_transfer_row(eps=eps / 255) for eps in (8, 16)]
    names = [path.name for path in plot(rows, tmp_path / "a")]
    assert names == ["a.png", "a.svg", "a-2.png", "a-2.svg"]


@PLOTS
def test_refuses_no_rows_and_a_folder_that_is_a_file(plot: Plot, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="no rows"):
        plot([], tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(FailureError, match="cannot make the folder"):
        plot(CASES["one"], tmp_path / "file" / "a")


def test_without_a_finished_mean_curves_say_so(tmp_path: Path) -> None:
    rows = [
        make_transfer_row(surrogates="timm:a", variant="plain"),
        make_transfer_row(surrogates="timm:b", variant=DWP),
    ]
    with pytest.raises(InvalidArgumentError, match="let the run finish"):
        plot_transfer_curves(rows, tmp_path / "a")
    assert len(plot_transfer_heatmap(rows, tmp_path / "b")) == 2


def test_variants_look_different() -> None:
    names = ["plain", *(f"dwp {i}" for i in range(18)), "noise"]
    looks = variant_styles(names)
    shown = {(look.colour, look.dash) for look in looks.values()}
    assert set(looks) == set(names) and len(shown) == len(names)


@pytest.mark.parametrize("width", [60.0, 150.0, 400.0])
def test_wrapped_lines_stay_within_their_width_and_lose_nothing(width: float) -> None:
    text = f"from {' + '.join(NETWORKS)} on {'x' * 90} images"
    lines = wrap(text, width)
    assert all(text_width(line, SMALL) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
