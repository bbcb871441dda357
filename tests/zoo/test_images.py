"""Corrupt images: named, or skipped and counted, also through workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from zoo_samples import WNIDS, imagenet, model

from secateurs.errors import FailureError
from secateurs.zoo import SKIPPED, drop_skipped, load_data


def damage(file: Path, kind: str) -> None:
    whole = file.read_bytes()
    file.write_bytes({"text": b"no image", "empty": b"", "short": whole[: len(whole) // 2]}[kind])


@pytest.mark.parametrize("kind", ["text", "empty", "short"])
@pytest.mark.parametrize("suffix", [".JPEG", ".png"])
def test_corrupt_images_are_named(tmp_path: Path, kind: str, suffix: str) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        noise = generator.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / name / f"1{suffix}")
    damage(tmp_path / "b" / f"1{suffix}", kind)
    data = load_data(tmp_path, model=model(2))
    with pytest.raises(FailureError, match=f"cannot read the image .*b/1{suffix}.*skip_corrupt"):
        data.dataset[1]
    skipping = load_data(tmp_path, model=model(2), skip_corrupt=True)
    image, label = skipping.dataset[1]
    assert label == SKIPPED
    assert torch.equal(image, torch.zeros(3, 8, 8))


@pytest.mark.parametrize("workers", [0, 2])
def test_corrupt_images_reach_the_caller_through_workers(tmp_path: Path, workers: int) -> None:
    imagenet(tmp_path)
    broken = tmp_path / WNIDS[1] / f"{WNIDS[1]}_1.JPEG"
    damage(broken, "text")
    data = load_data(tmp_path, model=model(1000))
    with pytest.raises(FailureError) as caught:
        list(DataLoader(data.dataset, batch_size=2, num_workers=workers))
    text = str(caught.value)
    assert text.startswith(f"cannot read the image {broken}")
    assert text.endswith("skip_corrupt=True")
    assert "\n" not in text
    data = load_data(tmp_path, model=model(1000), skip_corrupt=True)
    kept, skipped = [], 0
    for batch in DataLoader(data.dataset, batch_size=2, num_workers=workers):
        images, labels, dropped = drop_skipped(*batch)
        assert len(images) == len(labels)
        kept += labels.tolist()
        skipped += dropped
    assert kept == [0, 0, 0, 1, 1, 999, 999, 999]
    assert skipped == 1
