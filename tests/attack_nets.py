"""Small networks and images to attack, and modules that note what attacks do to them."""

import torch
from torch import Tensor, nn

from secateurs.zoo import load_data, load_model

CLASSES = 7


class ConvNet(nn.Module):
    """Three channels in, smooth activations, so that no gradient hangs on rounding."""

    def __init__(self, classes: int = CLASSES):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.head = nn.Linear(8, classes)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.tanh(self.second(torch.tanh(4 * self.first(images - 0.5))))
        return 5 * self.head(hidden.mean((2, 3)))


class Noting(nn.Module):
    """Keeps what it is shown and what it is told."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.seen: list[Tensor] = []
        self.told: list[object] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images.detach().clone())
        self.told.append("forward")
        return self.network(images)

    def step(self) -> None:
        self.told.append("step")

    def aim(self, classes: Tensor, targeted: bool = True) -> None:
        self.told.append((classes.tolist(), targeted))


def network(seed: int = 0, classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> ConvNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ConvNet(classes).to(dtype).eval()


def batch(
    count: int = 5, side: int = 12, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Images with some pixels at 0 and at 1, and a class for each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    return (images * 1.2 - 0.1).clamp(0, 1).to(dtype), classes


def digits(every: int = 14) -> tuple[nn.Module, Tensor, Tensor]:
    """The trained digits network reading pixels, some images that it knows, and their labels."""
    model = load_model("digits")
    dataset = load_data("digits", model=model).dataset
    pairs = [dataset[index] for index in range(0, len(dataset), every)]
    pixels = torch.stack([image for image, _ in pairs]) * 0.5 + 0.5
    labels = torch.tensor([label for _, label in pairs])
    reading = FromPixels(model.model).eval()
    right = reading(pixels).argmax(1) == labels
    return reading, pixels[right], labels[right]


class FromPixels(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, pixels: Tensor) -> Tensor:
        return self.inner((pixels - 0.5) / 0.5)
