import csv
import shutil
from pathlib import Path

import pytest
import torch
from command_line import LOADING, RANDOM, Run
from PIL import Image
from safetensors.torch import save_file
from torch.utils.data import default_collate

from secateurs.cli.loading import leave_gradients, make_loader
from secateurs.cli.option_types import NetworkAndData
from secateurs.evaluation import accumulate_gradients
from secateurs.zoo import load_data, load_model
from secateurs.zoo.digits import DigitsCNN

TINY = "--p-prune", "0", "0.5"


def test_without_options_it_trains_sweeps_and_says_where(run: Run) -> None:
    first = run("sweep")
    assert [row["p_prune"] for row in first.rows] == [n / 10 for n in range(10)]
    assert first.rows[0]["count"] == 896 and first.rows[0]["top1"] > 97
    assert first.rows[9]["top1"] < first.rows[0]["top1"]
    assert {path.name for path in first.folder.iterdir()} == {
        *("command.json", "config.json", "layers.jsonl", "outcomes.json"),
        *("results.csv", "results.jsonl", "sweep.png", "sweep.svg"),
    }  # fmt: skip
    with (first.folder / "results.csv").open(newline="") as file:
        assert [float(row["top1"]) for row in csv.DictReader(file)] == [
            row["top1"] for row in first.rows
        ]
    assert "90%" in first.out and "\x1b" not in first.out + first.err
    assert len(LOADING.sub("", first.err).splitlines()) == 1

    again = run("sweep", "--title", "Another title")
    assert (again.rows, again.out, again.folder) == (first.rows, first.out, first.folder)
    assert LOADING.sub("", again.err).startswith("these results were there already")
    assert "Another title" in (again.folder / "sweep.svg").read_text()


def test_every_spelling_of_the_ratios_is_the_same_sweep(run: Run) -> None:
    first = run(*RANDOM, "--p-prune", "0", "0.5")
    assert [row["p_prune"] for row in first.rows] == [0.0, 0.5]
    for spelling in (
        ["--p_prune", "0,0.5"],
        ["--p-prune=0", "0.5"],
        ["--p-prune", "0.5", "--p_prune=0.0,0.50"],
    ):
        again = run(*RANDOM, *spelling)
        assert again.folder == first.folder and "there already" in again.err, spelling


def test_different_sweeps_have_different_folders(run: Run) -> None:
    others = ([], ["--seed", 1], ["--amp"], ["--exclude", "linear2"], ["--std", 1])
    folders = [run(*RANDOM, "--p-prune", 0.5, *words).folder for words in others]
    assert len(set(folders)) == len(folders)


def test_files_of_one_name_have_different_folders(run: Run, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_file(DigitsCNN().state_dict(), tmp_path / name / "weights.safetensors")
    words = ("sweep", "--limit", 30, "--p-prune", 0.5, "--weights")
    said = [run(*words, f"{name}/weights.safetensors") for name in ("first", "second", "first")]
    assert [one.rows[0]["weights"] for one in said] == ["weights.safetensors"] * 3
    assert said[0].folder == said[2].folder != said[1].folder


def test_gradient_pruning_reports_the_dense_accuracy_beside_global(run: Run) -> None:
    rows = run(*RANDOM, *TINY, "--prune_type", "gradient", "global").rows
    loss = {(row["prune_type"], row["p_prune"]): row["loss"] for row in rows}
    assert loss["gradient", 0.5] == loss["gradient", 0.0] == loss["global", 0.0]
    assert loss["global", 0.5] != loss["global", 0.0]


def test_draws_are_averaged(run: Run) -> None:
    dense, pruned = run(*RANDOM, *TINY, "--p_bern", 0.5, "--draws", 3, "--seed", 7).rows
    assert (dense["draws"], dense["correct1"].count(";")) == (1, 0)
    assert (pruned["draws"], pruned["correct1"].count(";"), pruned["seed"]) == (3, 2, 7)
    assert pruned["p_bern"] == 0.5 and pruned["achieved"] == pytest.approx(0.25, abs=0.02)


def test_scores_from_gradients_take_training_images_and_say_so(run: Run, pictures: Path) -> None:
    words = ("--p-prune", 0.5, "--score", "magnitude", "taylor", "gradient")
    first = run(*RANDOM, *words)
    rows = {row["score"]: row for row in first.rows}
    assert rows["taylor"]["score_data"] == "256 images of split train"
    assert rows["magnitude"]["score_data"] == ""
    assert len({row["loss"] for row in rows.values()}) == 3
    assert "there already" in run(*RANDOM, *words).err
    folder = run(*RANDOM, *words, "--data", pictures, "--workers", 0, "--limit", 20)
    assert folder.rows[1]["score_data"] == "20 images of those scored"


def test_scored_images_for_gradients_are_of_all_classes(pictures: Path) -> None:
    model = load_model("digits", weights="random")
    images = load_data(str(pictures), model=model)
    loader = make_loader(images, batch_size=4, workers=0, device=torch.device("cpu"))
    said = leave_gradients(model, loader, NetworkAndData(), str(pictures), limit=10)
    assert said == "10 images of those scored"
    found = [parameter.grad for parameter in model.model.parameters()]
    first = {item.label: n for n, item in reversed([*enumerate(images.dataset.items)])}
    assert sorted(first) == list(range(10))
    batch = default_collate([images.dataset[number] for number in sorted(first.values())])
    accumulate_gradients(model.model, [batch])
    torch.testing.assert_close([each.grad for each in model.model.parameters()], found)


CONV, LINEAR1, LINEAR2 = 144 + 4608 + 18432, 256 * 64, 640


@pytest.mark.parametrize(
    ("words", "targets"),
    [
        ("", CONV + LINEAR1 + LINEAR2),
        ("--include conv*", CONV),
        ("--include conv1 linear2", 144 + LINEAR2),
        ("--exclude linear2", CONV + LINEAR1),
        ("--layers conv2d", CONV),
        ("--layers conv2d,linear --exclude conv* linear1", LINEAR2),
    ],
)
def test_layers_are_chosen(run: Run, words: str, targets: int) -> None:
    (row,) = run(*RANDOM, "--p-prune", 0.5, *words.split()).rows
    assert row["targets"] == targets
    assert row["achieved"] == pytest.approx(0.5, abs=1 / targets)


def test_granularities_and_scopes_make_a_grid(run: Run) -> None:
    said = run(*RANDOM, *TINY, "--granularity", "weight", "kernel", "--scope=layer", "global")
    found = [(row["granularity"], row["scope"], row["p_prune"]) for row in said.rows]
    assert len(set(found)) == len(found) == 8
    assert "kernel" in said.out and "layer" in said.out


def test_amp_limit_and_split_are_recorded(run: Run) -> None:
    (row,) = run(*RANDOM, "--p-prune", 0.5, "--amp", "--split", "train", "--limit", 11).rows
    assert (row["amp"], row["split"], row["count"]) == (True, "train", 11)


def test_workers_and_batch_size_change_nothing(run: Run, pictures: Path) -> None:
    words = (*RANDOM, *TINY, "--data", pictures)
    one = run(*words, "--output", "one", "--workers", 0, "--batch-size", 30)
    two = run(*words, "--output", "two", "--workers", 2, "-b", 7)
    assert [row["correct1"] for row in one.rows] == [row["correct1"] for row in two.rows]
    assert [row["loss"] for row in one.rows] == pytest.approx([row["loss"] for row in two.rows])
    assert two.rows[0]["batch_size"] == 7


def test_another_sweep_in_the_same_folder_is_refused_until_overwrite(run: Run) -> None:
    first = run(*RANDOM, "--p-prune", 0.5, "--output", "here")
    refused = run(*RANDOM, *TINY, "--output", "here")
    assert refused.code == 2
    for words in ("here holds results of another", "p_prune: there [0.5], now [0.0, 0.5]",
                  "another --output, or --overwrite"):  # fmt: skip
        assert words in refused.complaint
    assert run(*RANDOM, "--p-prune", 0.5, "--output", "here").rows == first.rows
    assert len(run(*RANDOM, *TINY, "--output", "here", "--overwrite").rows) == 2


def test_a_refused_option_does_not_block_the_folder(run: Run) -> None:
    assert run(*RANDOM, "--output", "here", "--layers", "conv2").code == 2
    assert run(*RANDOM, "--output", "here", "--p-prune", 0.5, "--layers", "conv2d").code == 0


def test_brackets_in_a_name_are_printed(run: Run) -> None:
    said = run(*RANDOM, "--p-prune", 0.5, "--output", "a[b]c[/b]")
    assert said.folder == Path("a[b]c[/b]")


def test_a_model_of_ones_own_in_the_current_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own_network.py").write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(),\n"
        "                               torch.nn.Linear(4 * 26 * 26, 10))\n"
    )
    words = ("--arch", "own_network:build", "--data", "digits", "--img-size", 28, "--mean", 0.1)
    (row,) = run("sweep", *words, "--std=0.3", "--limit", 20, "--p-prune", 0.5).rows
    assert (row["model"], row["weights"], row["img_size"]) == ("own_network:build", "as built", 28)
    assert "mean 0.1, std 0.3" in row["preprocess"] and row["units"] == 36 + 27040


def test_class_folders_named_by_wordnet_ids(run: Run, tmp_path: Path) -> None:
    for number, name in enumerate(["n01440764", "n02123045", "n15075141"]):
        (tmp_path / "imagenet" / "val" / name).mkdir(parents=True)
        for size in (40, 70):
            picture = Image.new("RGB", (size, 50), (90 * number, 120, 200))
            picture.save(tmp_path / "imagenet" / "val" / name / f"{size}.JPEG")
    words = ("--arch", "squeezenet1_1", "--weights", "random", "--data", "imagenet")
    kernel = ("--layers", "conv2d", "--granularity", "kernel", "--img-size", 64)
    said = run("sweep", *words, *TINY, *kernel, "--workers", 0)
    assert [row["count"] for row in said.rows] == [6, 6]
    assert (said.rows[0]["model"], said.rows[0]["split"]) == ("torchvision:squeezenet1_1", "val")
    assert 0.2 < said.rows[1]["achieved"] < 0.4 and said.rows[1]["layers"] == "conv2d"


def test_skipped_images_are_counted(run: Run, pictures: Path, tmp_path: Path) -> None:
    broken = sorted((pictures / "3").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:60])
    words = (*RANDOM, *TINY, "--data", pictures, "--skip-corrupt", "--workers", 0)
    said = run(*words)
    assert "skipped 1 of 30 images that could not be read" in said.err
    assert [row["count"] for row in said.rows] == [29, 29]
    assert run(*words, "--score", "taylor").rows[0]["score_data"] == "29 images of those scored"
    for split in ("train", "val"):
        shutil.copytree(pictures, tmp_path / "both" / split)
    words = (*RANDOM, *TINY, "--data", "both", "--workers", 0, "--score", "taylor")
    said = run(*words)
    assert said.code == 1 and "both/train/3" in said.complaint
    rows = run(*words, "--skip-corrupt").rows
    assert [row["score_data"] for row in rows] == ["29 images of split train"] * 2


def test_when_no_image_can_be_read_it_says_so(run: Run, pictures: Path) -> None:
    for picture in pictures.glob("*/*.png"):
        picture.write_bytes(b"torn")
    words = (*RANDOM, *TINY, "--data", pictures, "--skip-corrupt", "--workers", 0)
    assert run(*words).complaint.startswith("none of 30 images could be read: ")
    said = run(*words, "--score", "taylor").complaint
    assert said.startswith("none of the images could be read: there is nothing to compute")
