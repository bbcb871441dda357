"""Draw pictures of docs/ from short runs on real images, each of which takes about a minute.

python docs/_tools/pictures_from_runs.py gradient library training
python docs/_tools/pictures_from_runs.py packages   # the rows of results/transfer/packages.csv

Reads MNIST, CIFAR-10 images and trained networks from ../shared/data and ../shared/models, or from
the folders that SECATEURS_DATA and SECATEURS_MODELS name.
"""

import os
import sys
import warnings
from pathlib import Path

import foolbox
import numpy as np
import torch
import torchattacks
from art.attacks.evasion import MomentumIterativeMethod
from art.estimators.classification import PyTorchClassifier
from drawing import BLUE, GREEN, ORANGE, PINK, ROOT, blank, write_asked
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

import secateurs as sc
from secateurs.report.figure import add_axes, style_axes
from secateurs.training import Constant, Cubic, GradientRegrowth, Iterative, OneShot, Pruner
from secateurs.zoo import load_data, load_model

DATA = Path(os.environ.get("SECATEURS_DATA", ROOT.parent / "shared" / "data"))
MODELS = Path(os.environ.get("SECATEURS_MODELS", ROOT.parent / "shared" / "models"))
CIFAR10 = ROOT / "results" / "cifar10"
EPS, STEPS = 12 / 255, 20


def gradient() -> Figure:
    """What an attack follows: the gradient to the pixels, dense and of three draws."""
    loaded = load_model("mlpnet", weights=str(MODELS / "mlpnet_mnist.safetensors"))
    data = load_data("mnist", model=loaded, data_root=DATA, limit=10).dataset
    images = torch.stack([data[number][0] for number in (2, 3)])
    answers, found = gradient_of(loaded.model, images)
    columns = {"image": images, "dense gradient": found}
    candidates = sc.select(loaded.model, 0.9)
    for seed in range(3):
        masks = candidates.draw(p_bern=0.5, seed=seed)
        sc.apply_masks(loaded.model, masks, "gradient")
        again, own = gradient_of(loaded.model, images)
        if not torch.equal(again, answers):
            raise RuntimeError("the forward pass is not that of the dense network")
        near = torch.cosine_similarity(own.flatten(), found.flatten(), dim=0)
        columns[f"draw {seed + 1}, cosine {near:.2f}"] = own
    figure = blank(
        480, 212, "The same answers, bit for bit, and another gradient at each draw",
        ["MLPNet on MNIST; candidates: 90% of the weights, each pruned with probability one half"],
    )  # fmt: skip
    for across, (name, values) in enumerate(columns.items()):
        for down, value in enumerate(values):
            axes = add_axes(figure, 8 + 94 * across, 102 - 94 * down, 88, 88)
            axes.set_axis_off()
            most = float(value.abs().max())
            colours = {"cmap": "gray_r"} if across == 0 else {"cmap": "RdBu", "vmin": -most}
            axes.imshow(value.reshape(28, 28), vmax=most, **colours)
            if down == 0:
                axes.set_title(name, fontsize=8, pad=4)
    return figure


def gradient_of(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """The answers, and the gradient of the largest of them to the pixels."""
    x = images.clone().requires_grad_()
    answers = model(x)
    answers.max(dim=1).values.sum().backward()
    return answers.detach(), x.grad if x.grad is not None else torch.zeros_like(x)


class Pixels(nn.Module):
    """A network of CIFAR-10 that reads pixels in [0, 1]."""

    def __init__(self, name: str):
        super().__init__()
        loaded = load_model(
            f"cifar10_networks:{name}", weights=str(CIFAR10 / f"{name}.safetensors")
        )
        self.network = loaded.model
        self.register_buffer("mean", torch.tensor(loaded.preprocess.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(loaded.preprocess.std).view(3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits."""
        return self.network((pixels - self.mean) / self.std)


def cifar10_images() -> tuple[Tensor, Tensor]:
    """The lossless test images and their classes."""
    folder = DATA / "cifar10-lossless"
    lines = [line.split(",") for line in (folder / "labels.csv").read_text().split()[1:]]
    names = [name if name.endswith(".png") else f"{name}.png" for name, _ in lines]
    pixels = [np.asarray(Image.open(folder / name).convert("RGB")) for name in names]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return images, torch.tensor([int(label) for _, label in lines])


def packages() -> None:
    """Targeted success of three packages' MI-FGSM on networks that they do not see, as a file."""
    sys.path.insert(0, str(ROOT / "examples"))
    warnings.filterwarnings("ignore")
    networks = {name: Pixels(name).eval() for name in ("resnet", "vgg", "mobilenet", "convnext")}
    images, labels = cifar10_images()
    with torch.no_grad():
        right = torch.stack([net(images).argmax(1) == labels for net in networks.values()])
    images, labels = images[right.all(0)][:200], labels[right.all(0)][:200]
    shift = torch.randint(1, 10, labels.shape, generator=torch.Generator().manual_seed(0))
    targets = (labels + shift) % 10
    lines = ["package,surrogates,success"]
    for package, attack in (
        ("torchattacks", by_torchattacks), ("foolbox", by_foolbox), ("ART", by_art),
    ):  # fmt: skip
        for kind in ("plain", "diversified"):
            fooled: list[Tensor] = []
            for source, network in networks.items():
                torch.manual_seed(0)
                attacked = network if kind == "plain" else sc.Diversified(network, 1.0, 0.05)
                made = attack(attacked, images, targets)
                with torch.no_grad():
                    others = [net for other, net in networks.items() if other != source]
                    fooled += [(net(made).argmax(1) == targets).float().mean() for net in others]
            lines.append(f"{package},{kind},{100 * float(torch.stack(fooled).mean()):.2f}")
    (ROOT / "results" / "transfer" / "packages.csv").write_text("\n".join(lines) + "\n")


def by_torchattacks(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """MI-FGSM of torchattacks."""
    attack = torchattacks.MIFGSM(model, eps=EPS, alpha=1 / 255, steps=STEPS)
    attack.set_mode_targeted_by_label(quiet=True)
    return attack(images, targets)


def by_foolbox(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """MI-FGSM of foolbox."""
    attack = foolbox.attacks.MIFGSM(abs_stepsize=1 / 255, steps=STEPS)
    seen = foolbox.PyTorchModel(model, bounds=(0, 1))
    _, found, _ = attack(
        seen, images, foolbox.criteria.TargetedMisclassification(targets), epsilons=EPS
    )
    return found


def by_art(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """MI-FGSM of the Adversarial Robustness Toolbox."""
    seen = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), (3, 32, 32), 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = MomentumIterativeMethod(
        seen, eps=EPS, eps_step=1 / 255, max_iter=STEPS, targeted=True,
        batch_size=len(images), verbose=False,
    )  # fmt: skip
    return torch.from_numpy(attack.generate(images.numpy(), y=targets.numpy()))


def library() -> Figure:
    """What each layer keeps where one global ranking prunes 80% of the weights."""
    loaded = load_model("resnet20", weights=str(MODELS / "resnet20_cifar10.safetensors"))
    counts = sc.sparsity(sc.global_prune(loaded.model, 0.8))
    return counts.plot(title="ResNet-20, 80% pruned in one line: what is left of each layer")


def training() -> Figure:
    """Accuracy and ratio while four schedules prune the same network to the same ratio."""
    images, labels = mnist("train")
    seen, classes = mnist("test")
    per_epoch, epochs, begin = len(images) // 128, 10, 2
    first, last = begin * per_epoch, 7 * per_epoch
    runs = {
        "OneShot": (OneShot(0.98, at=first), None, BLUE),
        "Iterative": (Iterative(0.98, rounds=5, every=per_epoch, begin=first), None, ORANGE),
        "Cubic": (Cubic(0.98, begin=first, end=last, every=50), None, GREEN),
        "Constant, regrowth": (
            Constant(0.98), GradientRegrowth(every=100, until=last), PINK,
        ),
    }  # fmt: skip
    figure = blank(
        480, 236, "Four ways to prune 98% while LeNet-300-100 trains",
        ["MNIST, 10 epochs of SGD, the same first weights; test images; one seed"],
    )  # fmt: skip
    upper, lower = add_axes(figure, 44, 112, 300, 116), add_axes(figure, 44, 36, 300, 62)
    for axes in (upper, lower):
        style_axes(axes)
        axes.set_xlim(0, epochs)
    for name, (schedule, regrow, colour) in runs.items():
        torch.manual_seed(0)
        model = load_model("lenet300", weights="random").model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        along: list[float] = []
        accuracies: list[float] = []
        ratios: list[float] = []
        order = torch.Generator().manual_seed(0)
        with Pruner(
            model, optimizer, schedule, regrow=regrow, keep_at_least=0.005, seed=0
        ) as pruner:
            for epoch in range(epochs):
                batches = torch.randperm(len(images), generator=order).split(128)[:per_epoch]
                for number, batch in enumerate(batches):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                    optimizer.step()
                    pruner.step()
                    if number % (per_epoch // 4) == 0:
                        along.append(epoch + (number + 1) / per_epoch)
                        with torch.no_grad():
                            correct = (model(seen).argmax(1) == classes).float().mean()
                        accuracies.append(100 * float(correct))
                        ratios.append(100 * sc.sparsity(model).ratio)
        print(f"{name}: {accuracies[-1]:.2f} at {ratios[-1]:.2f}%")
        upper.plot(
            along, accuracies, color=colour, linewidth=1.3, label=f"{name}: {accuracies[-1]:.1f}"
        )
        lower.plot(along, ratios, color=colour, linewidth=1.3)
    upper.set_ylim(80, 100)
    upper.set_ylabel("Top-1 (%)")
    upper.tick_params(labelbottom=False)
    upper.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1.02), fontsize=8)
    lower.set_ylim(0, 100)
    lower.set_ylabel("Pruned (%)")
    lower.set_xlabel("Epoch")
    return figure


def mnist(split: str) -> tuple[Tensor, Tensor]:
    """All images of a split, as LeNet-300-100 takes them, and their classes."""
    data = load_data(
        "mnist", model=load_model("lenet300", weights="random"), split=split, data_root=DATA
    ).dataset
    pairs = [data[number] for number in range(len(data))]
    return torch.stack([image for image, _ in pairs]), torch.tensor([label for _, label in pairs])


if __name__ == "__main__":
    if sys.argv[1:] == ["packages"]:
        packages()
    else:
        write_asked({"gradient": gradient, "library": library, "training": training})
