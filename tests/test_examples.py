"""The examples run and print what the docs say; the code in the docs runs too."""

import doctest
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from secateurs.cli import main
from secateurs.results.row_reader import KINDS
from secateurs.zoo import load_data, load_model

ROOT = Path(__file__).resolve().parent.parent
# These need images and minutes; tests/test_cifar10_example.py runs them.
LONG = {"cifar10_networks", "train_cifar10"}
EXAMPLES = sorted(each for each in (ROOT / "examples").glob("*.py") if each.stem not in LONG)
PAGES = sorted((ROOT / "docs").glob("*.md"))
# Pages about other packages run where these are installed.
NEEDS = {
    "integrations": ("torchattacks", "foolbox", "art"),
    "repair": ("transformers",),
    "training": ("lightning", "transformers", "accelerate"),
}
RUN_IN_SHELL = ("retrain",)
"""Pages whose commands (blocks marked `console`) run in between their Python."""
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)

# What may not differ from one machine to the next.
EXACT = {
    "gradient_pruning": ["draw 2: same answers True", "same gradient True"],
    "kernel_table": ["resnet18: 12.4% of the kernels", "417,850 of  1,392,832 units"],
    "own_score": ["| DigitsCNN | weight | global | relative |"],
    "prune_and_restore": ["40,208  50.00%", "inside the block: 90.0%", "as before: True"],
    "retrain_with_accelerate": ["60 steps, and the zeros are held: 95.0%"],
    "sweep_your_model": ["| clouds | weight | layer |", "drawn: sweep.png, sweep.svg"],
}


def fenced(page: Path, *languages: str) -> list[tuple[str, str]]:
    """The (language, text) of a page's blocks in these languages."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [
        (language, text)
        for language, text in found
        if language in languages and not text.startswith("--8<--")  # a whole example, run above
    ]


@pytest.fixture
def in_empty_folder(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECATEURS_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("in_empty_folder")
def test_an_example_prints_what_the_docs_say(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accelerate = sys.modules.get("accelerate")
    if accelerate:  # of which one process has one device, such as a Trainer chose in another test
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    runpy.run_path(str(example), run_name="__main__")
    printed = capsys.readouterr().out
    for line in EXACT[example.stem]:
        assert line in printed
    # Accuracies may differ between machines; everything around the numbers may not.
    assert without_numbers(printed) == without_numbers(shown_output(example))
    assert list(tmp_path.iterdir()) == [], "an example cleans up behind itself"


def shown_output(example: Path) -> str:
    """The text block that follows an example in docs/examples.md."""
    text = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    _, found, rest = text.partition(f"--8<--\nexamples/{example.name}\n--8<--")
    assert found, f"docs/examples.md does not show {example.name}"
    match = re.search(r"^```text\n(.*?)^```$", rest, re.MULTILINE | re.DOTALL)
    assert match, f"docs/examples.md does not show what {example.name} prints"
    return match[1]


def without_numbers(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"[\d.,]*\d", "#", text)).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.usefixtures("in_empty_folder")
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_python_on_a_page_runs_from_top_to_bottom(page: Path) -> None:
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package)
    names: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    languages = ("python", "pycon", *(("console",) if page.stem in RUN_IN_SHELL else ()))
    for number, (language, text) in enumerate(fenced(page, *languages), start=1):
        where = f"{page.name}, block {number}"
        if language == "console":
            run_commands(text)
            continue
        if language == "python":
            exec(compile(text, where, "exec"), names)
            continue
        session = doctest.DocTestParser().get_doctest(text, names, where, str(page), 0)
        runner.run(session, out=report.append, clear_globs=False)
        names |= session.globs
        assert not runner.failures, "".join(report)


@pytest.mark.usefixtures("in_empty_folder")
def test_the_python_in_the_readme_runs() -> None:
    digits = load_model("digits")
    data = load_data("digits", model=digits, limit=64)
    names = {"model": digits.model, "loader": DataLoader(data.dataset, batch_size=32)}
    blocks = fenced(ROOT / "README.md", "python")
    assert blocks
    for number, (_, text) in enumerate(blocks, start=1):
        exec(compile(text, f"README.md, block {number}", "exec"), names)


def run_commands(text: str) -> None:
    for line in text.splitlines():
        program, *words = shlex.split(line.removeprefix("$ "))
        assert program == "secateurs", line
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0, line


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_commands_on_a_page_name_options_that_exist(page: Path) -> None:
    from secateurs.cli.parser import make_app, options_of

    commands = [name for name in make_app() if not name.startswith("-")]
    known = {name: {*options_of(name), "--help", "-h"} for name in commands}
    for _, text in fenced(page, "console", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            match = re.search(r"\bsecateurs (\w+)(.*)", line)
            if match:
                options = set(re.findall(r"(?<=\s)--?[a-z][\w-]*", match[2]))
                assert {o.replace("_", "-") for o in options} <= known[match[1]], line


def test_the_results_page_explains_every_column() -> None:
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.*?) \|", text, re.M))))
    known = {name for kind in KINDS for name in kind.columns()}
    assert known <= explained, sorted(known - explained)


def test_the_page_of_results_is_made_from_the_rows() -> None:
    tool = runpy.run_path(str(ROOT / "docs" / "_tools" / "results_page.py"))
    made = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    assert tool["page"]() == made, "run python docs/_tools/results_page.py docs/measured.md"
