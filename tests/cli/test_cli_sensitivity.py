"""From measured layers to ratios, networks, claims and differences, by command."""

import json
from pathlib import Path

from command_line import Run
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from secateurs.zoo.digits import DigitsCNN

RANDOM = ("--weights", "random", "--limit", 30)


def test_ratios_are_proposed_measured_and_pruned(run: Run, tmp_path: Path) -> None:
    first = run("sensitivity", *RANDOM, "--ratios", 0.5, 0.9, "--allocate", 0.6, "-o", "s")
    assert first.code == 0 and "conv1.weight" in first.out
    assert {path.name for path in Path("s").iterdir()} == {
        *("command.json", "config.json", "ratios.json", "results.csv", "results.jsonl"),
        *("sensitivity.png", "sensitivity.svg"),
    }
    ratios = json.loads(Path("s/ratios.json").read_text())
    assert len(ratios) == 5 and max(ratios.values()) <= 0.9
    proposal = first.out.partition("Weights to keep in each layer, as ratios.json has it:")[2]
    name, total, kept, share = proposal.split("all")[0].split()[-4:]
    assert (name, total) == ("linear2.weight", "640")
    assert kept == str(640 - round(640 * ratios[name])) and share == f"{100 * int(kept) / 640:.2f}"

    swept = run("sweep", *RANDOM, "--ratios-from", "s/ratios.json", "-o", "w")
    assert swept.code == 0, swept
    dense, pruned = map(json.loads, Path("w/results.jsonl").read_text().splitlines())
    assert dense["p_prune"] == 0 and abs(pruned["achieved"] - 0.6) < 1e-4

    save_file(DigitsCNN().state_dict(), tmp_path / "in.safetensors")
    asked = ("in.safetensors", "-o", "out.safetensors", "--ratios-from", "s/ratios.json")
    assert run("prune", *asked).code == 0
    weight = load_file("out.safetensors")["conv3.weight"]
    assert int((weight == 0).sum()) == round(ratios["conv3.weight"] * weight.numel())
    assert "not both" in run("prune", *asked, "--p-prune", 0.5).complaint

    shown = run("report", "s", "--markdown")
    assert shown.out.startswith("| layer | weights | 50% | 90% |")


def test_images_without_labels_measure_what_layers_cost(run: Run) -> None:
    Path("pictures").mkdir()
    for number in range(6):
        Image.new("L", (8, 8), 40 * number).save(f"pictures/{number}.png")
    asked = ("sensitivity", "--weights", "random", "-d", "pictures", "--unlabelled")
    found = run(*asked, "--ratios", 0.5, "--include", "conv*", "-o", "s")
    assert "6 images of pictures (all), no label read" in found.out
    assert "needs labels" in run(*asked, "--cost", "loss").complaint
    assert "needs labels" in run(*asked, "--score", "taylor").complaint


def test_layers_are_measured_as_a_repair_leaves_them(run: Run) -> None:
    asked = ("sensitivity", *RANDOM, "--ratios", 0.8, "--include", "conv3*", "linear*")
    found = run(*asked, "--repair", "sparsegpt", "reconstruct", "-o", "halves")
    assert found.code == 0, found
    words = " ".join(found.out.split())
    assert "15 images of digits (test)" in words
    assert "repaired by sparsegpt, reconstruct from 15 images of digits" in words
    given = ("--repair", "reconstruct", "--calibration", "digits", "--calibration-images", 20)
    other = run(*asked, *given, "-o", "others")
    assert "30 images of digits (test)" in " ".join(other.out.split())
    assert "20 images of digits" in " ".join(other.out.split())
    wanda = (*asked, "--score", "wanda", "-o", "wanda")
    assert "15 images of digits (test)" in " ".join(run(*wanda).out.split())
    given = ("--calibration", "digits", "--calibration-images", 20, "--overwrite")
    assert "30 images of digits (test)" in " ".join(run(*wanda, *given).out.split())
    rows = [json.loads(line) for line in Path("wanda/results.jsonl").read_text().splitlines()]
    assert {(row["calibration"], row["calibration_count"]) for row in rows} == {("digits", 20)}
    for command in (asked, ("budget", "--limit", 30)):
        assert "belongs to a repair" in run(*command, "--calibration", "digits").complaint
    assert "distill" in run(*asked, "--repair", "distill").complaint
    assert "another" in run(*asked, "--repair", "channels", "-o", "halves").complaint


def test_an_image_that_is_there_twice_is_not_both_measured_and_repaired_from(run: Run) -> None:
    Path("pictures").mkdir()
    for number in range(8):
        Image.new("L", (8, 8), 40 * (number % 5)).save(f"pictures/{number}.png")
    asked = ("sensitivity", "--weights", "random", "-d", "pictures", "--unlabelled")
    measured, repaired = "4 images of pictures (all)", "from 3 images of pictures"
    options = ("--repair", "reconstruct", "--ratios", 0.5, "--include", "conv3*", "-o", "s")
    words = " ".join(run(*asked, *options).out.split())
    assert measured in words and repaired in words, words
    for path in Path("pictures").iterdir():
        Image.new("L", (8, 8)).save(path)
    assert "are all the same" in run(*asked, *options, "--overwrite").complaint


def test_a_budget_writes_its_network_and_its_evidence(run: Run) -> None:
    found = run("budget", "--max-drop", 3, "--limit", 300, "-o", "b", "--log-to", "tensorboard")
    assert found.code == 0 and "with 95% confidence below" in found.out, found
    said = json.loads(Path("b/budget.json").read_text())
    assert said["p_prune"] > 0 and said["drop_high"] < 3 and said["count"] == 300
    assert "with 95% confidence below" in run("report", "b").out
    state = load_file("b/model.safetensors")
    weights = [state[name] for name in state if state[name].dim() > 1]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == round(said["p_prune"] * sum(weight.numel() for weight in weights))
    events = EventAccumulator("b/tensorboard")
    events.Reload()
    logged = sorted((each.step, round(each.value, 3)) for each in events.Scalars("drop_high"))
    rows = [json.loads(line) for line in Path("b/results.jsonl").read_text().splitlines()]
    tried = [(round(100 * row["p_prune"]), round(row["drop_high"], 3)) for row in rows]
    assert logged == sorted(tried) and len(tried) > 3
    again = run("budget", "--config", "b", "--json", "--quiet", "-o", "b")
    assert again.err == "" and json.loads(again.out)["rows"] == [said]
    kept = json.loads(Path("b/command.json").read_text())["options"]
    assert "--log-to" in kept and not {"--json", "--quiet"} & {*kept}
    assert "needs 595 images" in run("budget", "--limit", 300).complaint
    repair = ("budget", "-d", "pictures", "--repair", "batchnorm")
    assert "--calibration DIR" in run(*repair).complaint


def test_runs_are_compared(run: Run) -> None:
    for score in ("magnitude", "random"):
        run("sweep", *RANDOM, "--p-prune", 0, 0.5, "--score", score, "-o", score)
    found = run("compare", "magnitude", "random")
    assert "random against magnitude" in found.out and "lost/won" in found.out
    lines = run("compare", "magnitude", "random", "--json").out.splitlines()
    assert [json.loads(line)["paired"] for line in lines] == [True, True]
    assert json.loads(lines[0])["difference"] == 0
    assert "--confidence must be" in run("compare", "magnitude", "--confidence", 95).complaint
