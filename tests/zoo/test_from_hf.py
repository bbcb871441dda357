"""Image classifiers of transformers, from a folder made here; nothing is downloaded."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from zoo_samples import picture

from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.zoo import load_data, load_model

transformers = pytest.importorskip("transformers")

LABELS = ["cat", "dog", "great white"]


def build(labels: list[str] | None = None):
    torch.manual_seed(1)
    names = dict(enumerate(labels or LABELS))
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=16,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    return transformers.ViTForImageClassification(config).eval()


def save(folder: Path, model=None, processor=None) -> Path:
    (model or build()).save_pretrained(folder)
    (processor or transformers.ViTImageProcessor(size={"height": 32, "width": 32})).save_pretrained(
        folder
    )
    return folder


@pytest.fixture
def folder(tmp_path: Path, no_network: None) -> Path:
    return save(tmp_path / "vit")


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)).logits


def test_a_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    loaded = load_model(f"hf:{folder}")
    assert capfd.readouterr().err == ""
    assert isinstance(loaded.model, transformers.ViTForImageClassification)
    assert torch.equal(logits(loaded.model), logits(build()))
    assert (loaded.weights, loaded.num_classes) == ("pretrained", 3)
    assert loaded.classes == LABELS
    assert not loaded.model.training
    monkeypatch.chdir(folder.parent)
    assert load_model("hf:./vit").name == "hf:./vit"


def test_its_processor_is_used_as_it_is(folder: Path) -> None:
    made = load_model(f"hf:{folder}").preprocess
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    expected = processor(images=picture(), return_tensors="pt")["pixel_values"][0]
    assert torch.equal(made(picture()), expected)
    assert (made.img_size, made.crop_mode, made.interpolation) == (32, "squash", "bilinear")
    assert made.source == type(processor).__name__


def test_its_processor_can_be_overridden(folder: Path) -> None:
    made = load_model(f"hf:{folder}", mean=[0.0], std=[1.0]).preprocess
    plain = load_model(f"hf:{folder}").preprocess
    # The same image up to the rounding of the two resizers, in [0, 1] instead of [-1, 1].
    assert (made(picture()) - (plain(picture()) * 0.5 + 0.5)).abs().max() < 0.02
    assert made.source.endswith("except mean, std")


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        (
            lambda: transformers.CLIPImageProcessor(
                size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}
            ),
            (32, 0.8, "center", "bicubic"),
        ),
        (
            lambda: transformers.ConvNextImageProcessor(
                size={"shortest_edge": 32}, crop_pct=0.875, resample=2
            ),
            (32, 0.875, "center", "bilinear"),
        ),
        (
            lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 384}, resample=3),
            (384, 1.0, "squash", "bicubic"),
        ),
    ],
)
def test_what_processors_do_is_described_in_timms_words(
    tmp_path: Path, processor, expected: tuple
) -> None:
    save(tmp_path, processor=processor())
    made = load_model(f"hf:{tmp_path}").preprocess
    assert (made.img_size, made.crop_pct, made.crop_mode, made.interpolation) == expected
    size = made(picture()).shape
    assert size == (3, expected[0], expected[0])
    other = load_model(f"hf:{tmp_path}", crop_mode=expected[2]).preprocess
    assert other(picture()).shape == size
    assert (other(picture()) - made(picture())).abs().mean() < 0.1


def test_own_scaling_of_pixels_cannot_be_overridden(tmp_path: Path) -> None:
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1)
    save(tmp_path, processor=processor)
    assert load_model(f"hf:{tmp_path}").preprocess(picture()).max() > 100
    with pytest.raises(InvalidArgumentError, match="scales pixels in its own way"):
        load_model(f"hf:{tmp_path}", crop_pct=0.5)


def test_labels_match_class_folders(folder: Path, tmp_path: Path) -> None:
    for name in ("Great_White", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        picture().save(tmp_path / "data" / name / "1.png")
    data = load_data(tmp_path / "data", model=load_model(f"hf:{folder}"))
    assert [data.dataset[i][1] for i in range(2)] == [2, 1]


def test_placeholder_labels_are_no_names(tmp_path: Path) -> None:
    save(tmp_path, build(["LABEL_0", "LABEL_1"]))
    assert load_model(f"hf:{tmp_path}").classes is None


def test_weights_from_a_file(folder: Path, tmp_path: Path) -> None:
    state = build().state_dict()
    state["classifier.bias"] = torch.tensor([1.0, 2.0, 3.0])
    torch.save(state, tmp_path / "mine.pth")
    loaded = load_model(f"hf:{folder}", weights=str(tmp_path / "mine.pth"))
    assert loaded.weights == "mine.pth"
    assert loaded.model.classifier.bias.tolist() == [1, 2, 3]
    assert not loaded.model.training
    state.pop("classifier.bias")
    torch.save({**state, "extra": torch.zeros(1)}, tmp_path / "mine.pth")
    words = r"do not fit .*1 missing \(classifier\.bias\), 1 unexpected \(extra\)"
    with pytest.raises(InvalidArgumentError, match=words):
        load_model(f"hf:{folder}", weights=str(tmp_path / "mine.pth"))
    torch.save({**state, "classifier.bias": torch.zeros(5)}, tmp_path / "mine.pth")
    words = r"1 of another shape \(classifier\.bias 5 instead of 3\)"
    with pytest.raises(InvalidArgumentError, match=words):
        load_model(f"hf:{folder}", weights=str(tmp_path / "mine.pth"))


def test_untrained(folder: Path) -> None:
    torch.manual_seed(2)
    first = load_model(f"hf:{folder}", weights="random")
    torch.manual_seed(2)
    second = load_model(f"hf:{folder}", weights="random", num_classes=3)
    assert first.weights == "random"
    assert torch.equal(logits(first.model), logits(second.model))
    assert load_model(f"hf:{folder}", weights="random", num_classes=4).num_classes == 4


def test_half_precision_is_widened(tmp_path: Path) -> None:
    save(tmp_path, build().half())
    assert load_model(f"hf:{tmp_path}").model.dtype == torch.float32


def test_weights_without_a_head_are_refused(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidArgumentError, match=r"1 missing \(classifier\.weight\)"):
        load_model(f"hf:{folder}")


def test_folders_that_are_wrong(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"no transformers folder: it needs config\.js"):
        load_model(f"hf:{tmp_path}")
    with pytest.raises(InvalidArgumentError, match="have 3 classes, not 4"):
        load_model(f"hf:{folder}", num_classes=4)
    with pytest.raises(InvalidArgumentError, match="no weights file 'IMAGENET1K_V1'"):
        load_model(f"hf:{folder}", weights="IMAGENET1K_V1")
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(
        FailureError, match=r"transformers cannot load .*vit.*get it again"
    ) as caught:
        load_model(f"hf:{folder}")
    assert "\n" not in str(caught.value)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        FailureError, match=r"cannot get hf:.*preprocessor_config.json and weig"
    ) as e:
        load_model(f"hf:{folder}")
    assert "\n" not in str(e.value)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(FailureError, match=r"cannot read .*config\.json as a configuration"):
        load_model(f"hf:{folder}")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(InvalidArgumentError, match="is a bert model"):
        load_model(f"hf:{folder}")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidArgumentError, match=r"needs config.json, preprocessor_config.json"):
        load_model(f"hf:{folder}")


class Boom:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("boom"),))


def test_code_in_a_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Boom()}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidArgumentError, match=r"pytorch_model.bin contains code"):
        load_model("hf:./")
    assert not Path("boom").exists()


def test_without_a_network(no_network: None) -> None:
    with pytest.raises(FailureError) as caught:
        load_model("hf:google/vit-base-patch16-224")
    text = str(caught.value)
    assert text.startswith("cannot get hf:google/vit-base-patch16-224 (")
    assert text.endswith("hf:./FOLDER")
    assert "\n" not in text


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FailureError, match=r"pip install 'secateurs\[hf\]'"):
        load_model("hf:google/vit-base-patch16-224")
