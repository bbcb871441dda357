"""Train the networks of ``cifar10_networks.py``: ``python train_cifar10.py --data D --output O``.

Writes one file of half-precision weights for each network, as small as they get without a loss in
accuracy, and goes on where it was stopped. A GPU trains the wide networks, a CPU narrow ones. The
images come from torchvision's folder for CIFAR-10, or from train.parquet and test.parquet with
columns ``image`` and ``label`` (``pip install pyarrow``).

``--export-images DIR`` writes the first test images of each class as ``DIR/CLASS/NUMBER.png``, the
layout in which ``secateurs sweep`` and ``secateurs transfer`` read images.
"""

import argparse
import io
import time
from pathlib import Path

import torch
from cifar10_networks import CLASSES, MEAN, NETWORKS, STD
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

Data = tuple[Tensor, Tensor]  # images (count x 32 x 32 x 3, uint8) and labels (count)

# The largest learning rate at batch 128; BatchNorm goes with SGD, LayerNorm with AdamW.
SGD_RATE, ADAMW_RATE = 0.1, 2e-3
ADAMW = {"convnext"}


def read_images(folder: Path, split: str, limit: int | None = None) -> Data:
    """The images of ``train`` or ``test``, from a parquet file or as torchvision keeps them."""
    file = folder / f"{split}.parquet"
    if file.is_file():
        return read_parquet(file, limit)
    from torchvision.datasets import CIFAR10

    images = CIFAR10(str(folder), train=split == "train")
    return torch.from_numpy(images.data)[:limit], torch.tensor(images.targets)[:limit]


def read_parquet(file: Path, limit: int | None) -> Data:
    import numpy as np
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(file, columns=["image", "label"])[:limit]
    encoded = [row["bytes"] for row in table["image"].to_pylist()]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in encoded])
    return torch.from_numpy(pixels), torch.tensor(table["label"].to_pylist())


def export_images(data: Data, folder: Path, count: int) -> None:
    """Write the first ``count / 10`` images of every class, numbered as in the test split."""
    images, labels = data
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in (labels == label).nonzero().flatten().tolist()[: count // len(CLASSES)]:
            Image.fromarray(images[number].numpy()).save(folder / name / f"{number:05}.png")


def normalised(images: Tensor, device: torch.device) -> Tensor:
    """Bytes (batch x 32 x 32 x 3) to what the networks take (batch x 3 x 32 x 32)."""
    mean, std = (torch.tensor(values, device=device) for values in (MEAN, STD))
    return ((images.to(device) / 255 - mean) / std).permute(0, 3, 1, 2)


def cropped_and_flipped(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Move every image by up to ``padding`` pixels, mirror half of them; all in two steps."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    top, left = torch.randint(2 * padding + 1, (2, count, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    mirror = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirror, columns.flip(1), columns)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def accuracy(model: nn.Module, data: Data, device: torch.device) -> float:
    """Percent of the images that the network classifies correctly."""
    images, labels = data
    model.eval()
    with torch.inference_mode():
        answers = [model(normalised(part, device)).argmax(1).cpu() for part in images.split(500)]
    return 100 * (torch.cat(answers) == labels).double().mean().item()


def train(
    arch: str, model: nn.Module, data: Data, options: argparse.Namespace, checkpoint: Path
) -> None:
    """Train with a learning rate that rises and falls once; go on from ``checkpoint``."""
    optimizer: torch.optim.Optimizer
    if arch in ADAMW:
        rate = ADAMW_RATE * options.batch / 128
        optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=0.05)
    else:
        rate = SGD_RATE * options.batch / 128
        optimizer = torch.optim.SGD(
            model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
    # OneCycleLR divides by zero for four steps.
    steps = max(5, options.epochs * max(1, len(data[1]) // options.batch))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.25)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done = restore(checkpoint, parts)
    if schedule.total_steps != steps:
        raise SystemExit(f"{checkpoint} is of other --epochs or --batch: repeat or delete it")
    for epoch in range(done, options.epochs):
        started = time.perf_counter()
        loss = train_epoch(model, data, optimizer, schedule, options, epoch)
        state = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint(checkpoint, {"epochs": epoch + 1, **state})
        seconds = time.perf_counter() - started
        print(f"{arch}: epoch {epoch + 1} of {options.epochs}, loss {loss:.3f}, {seconds:.0f} s")


def train_epoch(
    model: nn.Module,
    data: Data,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    options: argparse.Namespace,
    epoch: int,
) -> float:
    """One pass over the images, in an order that depends on the seed and the epoch alone."""
    images, labels = data
    generator = torch.Generator().manual_seed(1000 * options.seed + epoch)
    torch.manual_seed(1000 * options.seed + epoch)  # for dropout
    order = torch.randperm(len(labels), generator=generator)
    batches = order.split(options.batch)[: max(1, len(labels) // options.batch)]
    model.train()
    total = 0.0
    for batch in batches:
        inputs = normalised(cropped_and_flipped(images[batch], generator), options.device)
        loss = F.cross_entropy(model(inputs), labels[batch].to(options.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
    return total / len(batches)


def restore(checkpoint: Path, parts: dict) -> int:
    """Load what an earlier run left, and say how many epochs it had trained."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return state["epochs"]


def save_checkpoint(checkpoint: Path, state: dict) -> None:
    """Replace the checkpoint in one move, so that a stop in between loses nothing."""
    fresh = checkpoint.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(checkpoint)


def save_half(model: nn.Module, file: Path, about: dict[str, str]) -> None:
    """Write the weights in half precision; counters stay as they are."""
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, file, metadata=about)


def train_and_save(
    arch: str, train_data: Data, test_data: Data, options: argparse.Namespace
) -> None:
    """Train one network unless its file is there, and say what it gets right."""
    torch.manual_seed(options.seed)
    model = NETWORKS[arch](width=options.width, stride=options.stride)
    model = model.to(options.device, memory_format=torch.channels_last)
    file = options.output / f"{arch}.safetensors"
    number = sum(parameter.numel() for parameter in model.parameters())
    if not file.is_file():
        checkpoint = options.output / f"{arch}.checkpoint"
        train(arch, model, train_data, options, checkpoint)
        full = accuracy(model, test_data, options.device)
        print(f"{arch}: {number:,} parameters, {full:.2f}% in single precision")
        names = ("width", "stride", "epochs", "batch", "seed")
        save_half(model, file, {name: str(getattr(options, name)) for name in names})
        checkpoint.unlink()
    model.load_state_dict(load_file(file))
    half = accuracy(model, test_data, options.device)
    print(f"{arch}: {half:.2f}% with weights in half precision, {file}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the images")
    parser.add_argument("--output", type=Path, help="folder for the weights")
    parser.add_argument("--arch", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--epochs", type=int, help="default 6, on a GPU 30")
    parser.add_argument("--width", type=float, help="channels, default 1, on a GPU 2")
    parser.add_argument("--stride", type=int, help="of the first layer, default 2, on a GPU 1")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--limit", type=int, help="use only so many images of each split")
    parser.add_argument("--device", default="auto", help="cpu, cuda, mps")
    parser.add_argument("--threads", type=int, help="threads on a CPU, default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-images", type=Path, metavar="DIR", help="write test images there")
    parser.add_argument("--count", type=int, default=1000, help="so many images to export")
    options = parser.parse_args()
    if not options.output and not options.export_images:
        parser.error("give --output FOLDER, --export-images FOLDER or both")
    return options


def fill_in(options: argparse.Namespace) -> None:
    """Choose the device, and sizes that it trains in minutes."""
    if options.device == "auto":
        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.device = torch.device(options.device)
    small = options.device.type == "cpu"
    for name, narrow, wide in (("epochs", 6, 30), ("width", 1, 2), ("stride", 2, 1)):
        if getattr(options, name) is None:
            setattr(options, name, narrow if small else wide)
    if options.threads:
        torch.set_num_threads(options.threads)


def main() -> None:
    options = parse()
    fill_in(options)
    test_data = read_images(options.data, "test", options.limit)
    if options.export_images:
        export_images(test_data, options.export_images, options.count)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        train_data = read_images(options.data, "train", options.limit)
        for arch in options.arch:
            train_and_save(arch, train_data, test_data, options)


if __name__ == "__main__":
    main()
