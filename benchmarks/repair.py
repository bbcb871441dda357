"""Repair trained networks without labels, and score them: accuracy, processor time, peak memory.

    python benchmarks/repair.py mlpnet 0.98 --shared ../shared

Labels score, and choose nothing: the recipes were chosen by the divergence from the dense network
on calibration images that were not repaired from.
"""

import argparse
import resource
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import secateurs as sc
from secateurs.zoo import load_data, load_model
from secateurs.zoo.loaded_model import LoadedModel

# Of each network the architecture, weights, images to repair from and to score, criterion, steps,
# and options.
IMAGENET = ("imagenet-compatible-calibration", "imagenet-compatible")
RECIPES = {
    "mlpnet": ("mlpnet", "mlpnet_mnist", ("mnist", "mnist"), "lamp", ["distill"],
               {"iterations": 4000, "learning_rate": 0.03, "features": 0,
                "distill_batch_size": 256, "batch_size": 1000}),
    "resnet20": ("resnet20", "resnet20_cifar10", ("cifar10-jpeg", "cifar10-lossless"), "magnitude",
                 ["batchnorm", "reconstruct"], {"damping": 0.1, "batch_size": 64}),
    "lite0": ("timm:tf_efficientnet_lite0", "tf_efficientnet_lite0", IMAGENET, "lamp",
              ["batchnorm"], {}),
    "lite1": ("timm:tf_efficientnet_lite1", "tf_efficientnet_lite1", IMAGENET, "lamp",
              ["batchnorm"], {}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("p_prune", type=float, nargs="+")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--images", type=int, default=128, help="how many to repair from, 0: all")
    given = parser.parse_args()
    arch, weights, (unlabelled, scored), score, steps, options = RECIPES[given.network]
    data = given.shared / "data"
    weights = given.shared / "models" / f"{weights}.safetensors"
    images: Tensor | None = None
    for p_prune in given.p_prune:
        loaded = load_model(arch, weights=str(weights))
        model = loaded.model
        if images is None:
            images = calibration(unlabelled, data, loaded, given.images)
            pairs = stacked(load(scored, data, loaded).dataset)
            batches = list(zip(*(part.split(20) for part in pairs), strict=True))
        start = time.process_time()
        sc.global_prune(model, p_prune, score=score)
        reports = sc.repair(model, images, steps, labelled=batches, **options)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        for done in reports:
            print(
                given.network,
                p_prune,
                *done.steps,
                f"accuracy {done.accuracy[0]:.4f} -> {done.accuracy[1]:.4f}",
            )
        print(f"  {len(images)} images, {seconds:.0f} s of processor time with scoring, "
              f"peak {peak:.2f} GiB")  # fmt: skip


def load(name: str, data: Path, model: LoadedModel, **options: object):
    spec = name if name == "mnist" else data / name
    return load_data(spec, model=model, data_root=data, download=False, **options)


def calibration(name: str, data: Path, model: LoadedModel, count: int) -> Tensor:
    """Images without labels."""
    if name != IMAGENET[0]:
        return stacked(load(name, data, model, split="train", limit=count or None).dataset)[0]
    files = sorted((data / name).glob("*.png"))[: count or None]
    return torch.stack([model.preprocess(Image.open(file).convert("RGB")) for file in files])


def stacked(dataset: torch.utils.data.Dataset) -> tuple[Tensor, Tensor]:
    images, labels = zip(*(dataset[i] for i in range(len(dataset))), strict=True)
    return torch.stack(images), torch.tensor(labels)


if __name__ == "__main__":
    main()
