from pathlib import Path

import pytest
from command_line import Run

from result_rows import make_row
from secateurs.results import Results, TransferRow
from transfer_rows import make_benchmark


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Three sweeps on disk: two finished, one not."""
    made = [tmp_path / name for name in ("weight", "kernel", "unfinished")]
    for number, folder in enumerate(made):
        with Results(folder) as results:
            results.open({"granularity": folder.name})
            if number < 2:
                results.add_all(
                    make_row(p, 80 - 40 * p - number, granularity=folder.name, achieved=p / 2)
                    for p in (0.0, 0.4, 0.8)
                )
    return made


def test_one_sweep_as_a_table(run: Run, folders: list[Path]) -> None:
    for path in (folders[0], folders[0] / "results.jsonl", folders[0] / "results.csv"):
        said = run("report", path)
        assert (said.code, said.err) == (0, "")
        assert "resnet18" in said.out and "40%" in said.out and "\x1b" not in said.out


def test_several_sweeps_in_one_table_and_one_plot(run: Run, folders: list[Path]) -> None:
    said = run("report", *folders, "-o", "new/plot.svg", "--x", "p-prune", "--title", "Ours")
    assert said.code == 0
    assert said.err.splitlines() == [
        f"left out, since they have no finished rows: {folders[2]}",
        "wrote new/plot.png",
        "wrote new/plot.svg",
    ]
    assert "weight" in said.out and "kernel" in said.out
    svg = Path("new/plot.svg").read_text()
    assert "Ours" in svg and "Pruning ratio asked for" in svg and Path("new/plot.png").is_file()


def test_markdown(run: Run, folders: list[Path]) -> None:
    said = run("report", "--markdown", folders[0], folders[1])
    assert said.out.startswith("| model | granularity | scope | 0% | 40% | 80% |\n| --- |")
    assert (said.code, said.err) == (0, "")


def test_without_any_finished_row(run: Run, folders: list[Path]) -> None:
    said = run("report", folders[2])
    assert said.code == 2 and f"no finished rows in {folders[2]}" in said.complaint


def test_a_plot_that_cannot_be_written(run: Run, folders: list[Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = run("report", folders[0], "--output", "file/plot")
    assert said.code == 1 and said.err.startswith("secateurs: cannot make the folder file (")
    assert len(said.err.splitlines()) == 1


def test_a_row_that_is_broken_in_the_middle(run: Run, folders: list[Path]) -> None:
    file = folders[0] / "results.jsonl"
    first, *rest = file.read_text().splitlines(keepends=True)
    file.write_text("".join([first[:50] + "\n", *rest]))
    said = run("report", folders[0])
    assert said.code == 1 and f"row 1 of {file} is broken" in said.complaint
    assert said.complaint.endswith("; remove that line")


@pytest.fixture
def transfers(tmp_path: Path) -> list[Path]:
    """Two transfers on disk: one finished, one not."""
    made = [tmp_path / name for name in ("transfer", "begun")]
    for folder in made:
        with Results(folder, TransferRow) as results:
            results.open({"transfer": folder.name})
            if folder is made[0]:
                results.add_all(make_benchmark(variants=["plain", "dwp 0.3 0.5"]))
    return made


def test_a_transfer_as_tables(run: Run, transfers: list[Path]) -> None:
    for path in (transfers[0], transfers[0] / "results.jsonl", transfers[0] / "results.csv"):
        said = run("report", path)
        assert (said.code, said.err) == (0, "")
        assert "Targeted success" in said.out and "Untargeted success" in said.out
        assert "dwp 0.3" in said.out and "vs plain" in said.out and "\x1b" not in said.out


def test_a_transfer_as_plots(run: Run, transfers: list[Path]) -> None:
    said = run("report", *transfers, "-o", "new/plot.svg", "--title", "Ours", "--markdown")
    assert said.code == 0
    assert said.err.splitlines() == [
        f"left out, since they have no finished rows: {transfers[1]}",
        *(
            f"wrote new/plot-{name}.{end}"
            for name in ("heatmap", "curves")
            for end in ("png", "svg")
        ),
    ]
    assert said.out.startswith("**Targeted success in percent, surrogates lite0**\n\n| variant |")
    assert "Ours" in Path("new/plot-curves.svg").read_text()
    assert Path("new/plot-heatmap.png").is_file()


def test_a_sweep_and_a_transfer_do_not_mix(
    run: Run, folders: list[Path], transfers: list[Path]
) -> None:
    said = run("report", folders[0], transfers[0])
    assert said.code == 2 and "give folders of one kind" in said.complaint
    assert f"{folders[0]} is a sweep and {transfers[0]} is a transfer" in said.complaint


@pytest.mark.parametrize("output", [".", "..", "/", "weight/.."])
def test_plots_without_a_name_are_refused_before_anything_is_printed(
    run: Run, folders: list[Path], output: str
) -> None:
    said = run("report", folders[0], "-o", output)
    assert said.code == 2
    assert "the plots need a name" in said.complaint and "plot" in said.complaint


def test_runs_of_all_kinds_as_one_page(
    run: Run, folders: list[Path], transfers: list[Path]
) -> None:
    said = run("report", *folders, transfers[0], "-o", "new/page.html", "--title", "Ours & theirs")
    assert (said.code, said.out) == (0, "")
    assert said.err.splitlines() == [
        f"left out, since they have no finished rows: {folders[2]}",
        "wrote new/page.html",
    ]
    page = Path("new/page.html").read_text(encoding="utf-8")
    assert "<title>Ours &amp; theirs</title>" in page
    assert "Accuracy after pruning" in page and "Adversarial transfer" in page


def test_a_page_of_nothing_or_in_markdown(run: Run, folders: list[Path]) -> None:
    said = run("report", folders[2], "-o", "page.html")
    assert said.code == 2 and f"no finished rows in {folders[2]}" in said.complaint
    said = run("report", folders[0], "-o", "page.html", "--markdown")
    assert said.code == 2 and "--markdown" in said.complaint and not Path("page.html").exists()
