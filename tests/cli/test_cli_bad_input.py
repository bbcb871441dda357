"""Each mistake is one line on stderr with the remedy: exit code 2 for usage, 1 for failure."""

import os
import pickle
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision
from command_line import RANDOM, Run, no_file_above
from PIL import Image

from secateurs.results import read_rows


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("swep", "No such command: swep; did you mean sweep?; see secateurs --help"),
        ("--foo", "No such option: --foo; see secateurs --help"),
        ("sweep --foo 1", "No such option: --foo; see secateurs sweep --help"),
        ("sweep --p-prun 0.5", "did you mean --p-prune"),
        ("speed --batch 8", "did you mean --batch-sizes?"),
        ("repair --calibration-images 8", "did you mean --images?"),
        ("retrain --arch lenet3000", "DIR/train/CLASS/*; did you mean lenet300?"),
        ("sweep 0.5", "unexpected extra argument"),
        ("sweep --limit x", "--limit takes whole numbers such as 3, got 'x'"),
        ("sweep --limit 0", "--limit must be at least 1, got 0"),
        ("sweep --batch-size 0", "--batch-size must be at least 1, got 0"),
        ("sweep --workers -1", "--workers must be at least 0, got -1"),
        ("sweep --workers 100000", "--workers 100000 is far more than the"),
        ("transfer --data digits --threads 100000", "--threads 100000 is far more than the"),
        ("sweep --img-size 50000", "--img-size may be at most 16,384 pixels, got 50,000"),
        ("budget --max-drop 200", "--max-drop must lie between 0 and 100 points, got 200"),
        ("sweep --draws 0", "--draws must be a whole number from 1, got 0"),
        ("sweep --seed 99999999999999999999", "--seed must fit into 64 bits"),
        ("sweep --batch-size 99999999999999999999", "--batch-size must fit into 64 bits"),
        ("sweep --p-prune 1.2", "--p-prune must be from 0 to 1 inclusive, got 1.2"),
        ("sweep --p-prune -0.1", "--p-prune must be from 0 to 1 inclusive, got -0.1"),
        ("sweep --p-prune nan", "--p-prune must be from 0 to 1 inclusive, got nan"),
        ("sweep --p-prune half", "--p-prune takes numbers such as 0.5, got 'half'"),
        ("sweep --p-prune 0 0.5x", "--p-prune takes numbers such as 0.5, got '0.5x'"),
        ("sweep --p-prune", "--p-prune needs at least one value"),
        ("sweep --p-prune=", "the argument after --p-prune is empty"),
        ("sweep --p-bern 50", "--p-bern must be from 0 to 1 inclusive, got 50.0; for 50 per cent"),
        ("transfer --mup-p-prune 0.1 2", "--mup-p-prune must be from 0 to 1 inclusive, got 2.0"),
        ("prune x.pt --p-prune 2", "--p-prune must be from 0 to 1 inclusive, got 2.0"),
        ("sweep --granularity wieght", "got 'wieght'; did you mean weight?"),
        ("sweep --prune-type globl", "got 'globl'; did you mean global?"),
        ("sweep --scope layers", "got 'layers'; did you mean layer?"),
        ("sweep --score magnitud", "got 'magnitud'; did you mean magnitude?"),
        ("sweep --weights random --layers conv2", "got 'conv2'; did you mean conv2d"),
        ("sweep --weights random --include nothing*", "nothing*"),
        ("sweep --device foo", "no device 'foo' here; write --device cpu"),
        ("sweep --device cudda", "no device 'cudda' here; write --device cpu; did you mean cuda?"),
        ("sweep --device meta", "no device 'meta' here; write --device cpu"),
        ("sweep --arch resnet18", "--arch resnet18 needs images: write --data DIR"),
        ("sweep --arch resnet20", "a folder in ImageNet layout, or --data cifar10"),
        ("sweep --arch digts", "in ImageNet layout; did you mean digits?"),
        ("sweep --arch resnet1 --data digits", "did you mean resnet18"),
        ("sweep --arch nowhere:build --data digits", "there is no module 'nowhere'"),
        ("sweep --weights random --data nowhere", "no data 'nowhere'"),
        ("sweep --weights random --data digit", "did you mean digits?"),
        ("sweep --weights random --split vla", "got 'vla'"),
        ("sweep --weights nofile.pt", "no weights file nofile.pt"),
        ("sweep --weights nowhere", "for digits-cnn give a file, or nothing"),
        ("transfer --surrogates digits=no.pt --targets digits-wide", "no weights file no.pt"),
        ("transfer --surrogates no.pt --targets digits-wide --data digits", "write NAME=no.pt"),
        ("transfer --surrogates resnet20 --data digits", "or resnet20=random"),
        ("sweep --arch no.pt --data digits", "such as resnet18, and give the file as --weights"),
        ("sweep --weights random --interpolation cubic", "did you mean bicubic?"),
        ("sweep --weights random --img-size 1", "digits-cnn takes no images of 1 x 1 pixels"),
        ("speed --weights random --img-size 1", "): give another --img-size"),
        ("sweep --weights random --crop-pct 2", "--crop-pct must be above 0 and at most 1"),
        ("sweep --weights random --std 0", "std must be above 0"),
        ("report", "FOLDERS is missing; see secateurs report --help"),
        ("report nowhere", "no results at nowhere; give the output folder of a sweep"),
        ("report nowhere --x achived", "did you mean achieved?"),
    ],
)
def test_usage(run: Run, words: str, complaint: str) -> None:
    said = run(*words.split())
    assert complaint.lower() in said.complaint.lower()
    assert said.code == 2


def test_no_such_device_number(run: Run) -> None:
    said = run(*RANDOM, "--device", "cuda:99")
    assert said.code == 2 and "no device 'cuda:99' here; write --device" in said.complaint


def test_folders_without_images(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = run(*RANDOM, "--data", "empty")
    assert said.code == 2 and "no images in empty: understood are" in said.complaint
    (tmp_path / "loose").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "loose" / "a.png")
    said = run(*RANDOM, "--data", "loose")
    assert said.code == 2 and "put the images into one folder a class" in said.complaint


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named(run: Run, pictures: Path, workers: int) -> None:
    broken = sorted((pictures / "3").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    words = (*RANDOM, "--data", pictures, "--workers", workers, "--p-prune", 0.5)
    said = run(*words, "--output", "here")
    assert said.code == 1 and str(broken) in said.complaint
    assert said.complaint.endswith("--skip-corrupt")
    assert "no finished rows" in run("report", "here").complaint


def test_an_unknown_class_folder_is_named(run: Run, pictures: Path) -> None:
    (pictures / "3").rename(pictures / "cat")
    said = run(*RANDOM, "--data", pictures)
    assert said.code == 2 and "does not know the class folder 'cat'" in said.complaint


def test_a_checkpoint_of_another_architecture_lists_keys(run: Run, tmp_path: Path) -> None:
    other = torchvision.models.squeezenet1_1(num_classes=10)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    said = run("sweep", "--weights", "other.pt")
    assert said.code == 2 and "other.pt do not fit DigitsCNN" in said.complaint
    assert "missing (conv1.weight" in said.complaint
    assert "unexpected (features.0.weight" in said.complaint


class Evil:
    """Makes a folder called "harm" when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(
    run: Run, tmp_path: Path, zipped: bool
) -> None:
    if zipped:
        torch.save({"weight": Evil()}, tmp_path / "evil.pt")
    else:
        (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    said = run("sweep", "--weights", "evil.pt")
    assert said.code == 2 and "evil.pt contains code" in said.complaint
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_damaged_checkpoint(run: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a checkpoint at all")
    said = run("sweep", "--weights", name)
    assert said.code == 1 and f"cannot read {name}" in said.complaint


@pytest.mark.parametrize(("output", "reason"), [("file", "it is a file"), ("file/here", "file")])
def test_an_output_that_cannot_be_a_folder(
    run: Run, tmp_path: Path, output: str, reason: str
) -> None:
    (tmp_path / "file").write_text("mine")
    said = run(*RANDOM, "--output", output)
    assert said.code == 1 and reason in said.complaint and "--output" in said.complaint
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_an_output_without_permission(run: Run, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    for output in ("closed", "closed/here"):
        said = run(*RANDOM, "--output", output)
        assert said.code == 1 and "ermission denied" in said.complaint
        assert "--output" in said.complaint


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read")
def test_data_that_may_not_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o000)
    said = run(*RANDOM, "--data", "closed")
    assert said.code == 1 and "ermission denied" in said.complaint and "closed" in said.complaint


def test_an_unforeseen_error_is_one_line_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "odd_network.py").write_text(
        "import torch\n"
        "class Odd(torch.nn.Linear):\n"
        "    def forward(self, images):\n"
        "        raise KeyError('two\\nlines')\n"
        "def build():\n"
        "    return Odd(64, 10)\n"
    )
    words = ("sweep", "--arch", "odd_network:build", "--data", "digits", "--p-prune", 0.5)
    said = run(*words, "--img-size", 8)
    assert said.code == 1 and "KeyError" in said.complaint
    assert said.complaint.endswith("(SECATEURS_TRACEBACK=1 shows where)")
    monkeypatch.setenv("SECATEURS_TRACEBACK", "1")
    assert "in forward\n    raise KeyError" in run(*words, "--img-size", 8).err


def test_a_full_disk_loses_nothing_and_the_same_command_goes_on(run: Run, tmp_path: Path) -> None:
    expected = run(*RANDOM, "--output", "expected").rows
    with no_file_above(5000):  # the configuration and the progress fit, ten rows do not
        said = run(*RANDOM, "--output", "here")
    assert said.code == 1 and "the disk is full" in said.complaint
    assert "run the same command again to continue" in said.complaint
    assert read_rows(tmp_path / "here") == []
    progress = (tmp_path / "here" / "progress.json").read_text()
    assert progress.count('"done": [[0, 30]]') == 10
    rows = run(*RANDOM, "--output", "here").rows
    assert [row["loss"] for row in rows] == [row["loss"] for row in expected]
    with no_file_above(5000):  # now there are rows, and there is no room for a plot
        said = run(*RANDOM, "--output", "here", "--title", "new")
    assert said.code == 1 and "sweep.png: the disk is full" in said.err.splitlines()[-1]
    assert len(read_rows(tmp_path / "here")) == len(read_rows("here/results.csv")) == 10


def test_no_network(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # made anew, with these proxies
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # refuses at once
    (tmp_path / "pictures" / "0").mkdir(parents=True)
    said = run("sweep", "--arch", "resnet18", "--data", "pictures")
    assert said.code == 1 and said.out == ""
    last = said.err.splitlines()[-1]
    assert "IMAGENET1K_V1" in last and last.endswith("give a file that you have: --weights FILE")
    said = run(*RANDOM, "--data", "mnist", "--data-root", tmp_path / "data")
    assert said.code == 1 and said.out == ""
    assert said.err.splitlines()[-1].endswith("--data-root DIR")
    assert "Traceback" not in said.err
