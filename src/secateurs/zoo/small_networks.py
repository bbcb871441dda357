"""The small networks of the pruning literature, for MNIST and CIFAR-10, without published weights.

Each is called by a name of its own in `secateurs.zoo.load_model`; weights come from a file, or are
drawn from the global generator (``weights="random"``). So ``pretrained`` must be False.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from secateurs.errors import InvalidArgumentError
from secateurs.zoo.digits import DIGITS_PREPROCESS, DigitsNetwork

MNIST_PREPROCESS = DIGITS_PREPROCESS | {"img_size": 28, "mean": (0.1307,), "std": (0.3081,)}
CIFAR10_PREPROCESS = DIGITS_PREPROCESS | {"img_size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def lenet300(pretrained: bool = False) -> DigitsNetwork:
    """LeNet-300-100 (LeCun et al. 1998): linear layers 784-300-100-10; 266,200 weights.

    Example:
        >>> sum(p.numel() for p in lenet300().parameters())
        266610
    """
    _refuse_pretrained("lenet300", pretrained)
    return _linear_layers(300, 100)


def lenet5(pretrained: bool = False) -> DigitsNetwork:
    """LeNet-5 as Caffe has it, which Han et al. (2015) pruned; 430,500 weights.

    Example:
        >>> sum(p.numel() for p in lenet5().parameters())
        431080
    """
    _refuse_pretrained("lenet5", pretrained)
    return DigitsNetwork(
        {
            "conv1": nn.Conv2d(1, 20, 5),
            "pool1": nn.MaxPool2d(2),
            "conv2": nn.Conv2d(20, 50, 5),
            "pool2": nn.MaxPool2d(2),
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(800, 500),
            "relu1": nn.ReLU(),
            "fc2": nn.Linear(500, 10),
        },
        MNIST_PREPROCESS,
    )


def mlpnet(pretrained: bool = False) -> DigitsNetwork:
    """MLPNet of the one-shot pruning literature: linear layers 784-40-20-10 without biases.

    Example:
        >>> sum(p.numel() for p in mlpnet().parameters())
        32360
    """
    _refuse_pretrained("mlpnet", pretrained)
    return _linear_layers(40, 20, bias=False)


def _linear_layers(first: int, second: int, *, bias: bool = True) -> DigitsNetwork:
    return DigitsNetwork(
        {
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(784, first, bias),
            "relu1": nn.ReLU(),
            "fc2": nn.Linear(first, second, bias),
            "relu2": nn.ReLU(),
            "fc3": nn.Linear(second, 10, bias),
        },
        MNIST_PREPROCESS,
    )


class BasicBlock(nn.Module):
    """relu(x + f(x)), f two 3 x 3 convolutions with BatchNorm (He et al. 2016, figure 2).

    With a stride above 1, or if the channels change, x is projected by a 1 x 1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Identity()
            if stride == 1 and inputs == outputs
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Batch x outputs x height / stride x width / stride."""
        inside = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inside)) + self.downsample(x))


class CifarResNet(nn.Module):
    """ResNet for 32 x 32 images: three stages of 16, 32, 64 channels (He et al. 2016, section 4.2).

    Args:
        blocks: in each stage; 3 make ResNet-20.
        width: channels are 16, 32 and 64 times this.
        num_classes: length of the logits.

    Attributes:
        num_classes: as given.
        classes: CIFAR-10's, for 10 classes.
        preprocess: the values of its preprocessing, by name.
    """

    def __init__(self, blocks: int = 3, width: int = 1, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16 * width, blocks, stride=1)
        self.layer2 = _stage(16 * width, 32 * width, blocks, stride=2)
        self.layer3 = _stage(32 * width, 64 * width, blocks, stride=2)
        self.fc = nn.Linear(64 * width, num_classes)
        self.num_classes = num_classes
        self.classes = CIFAR10_CLASSES if num_classes == 10 else None
        self.preprocess = dict(CIFAR10_PREPROCESS)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, batch x classes."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
        return self.fc(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


def resnet20(pretrained: bool = False, num_classes: int = 10) -> CifarResNet:
    """ResNet-20 for CIFAR (He et al. 2016, section 4.2), with projections; 270,896 weights.

    Example:
        >>> model = resnet20()
        >>> sum(p.numel() for p in model.parameters() if p.dim() > 1)
        270896
    """
    _refuse_pretrained("resnet20", pretrained)
    return CifarResNet(num_classes=num_classes)


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        raise InvalidArgumentError(
            f"nobody published weights of {name}: leave pretrained out, and load a file"
        )


SMALL_NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "lenet300": lenet300,
    "lenet5": lenet5,
    "mlpnet": mlpnet,
    "resnet20": resnet20,
}
"""The networks by their names for `secateurs.zoo.load_model`."""
