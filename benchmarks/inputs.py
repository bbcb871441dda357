"""Networks to select from: of any size and number of tensors, friendly or not."""

from collections.abc import Callable

import torch
from torch import nn

Fill = Callable[[torch.Tensor], torch.Tensor]

KINDS: dict[str, Fill] = {
    "normal": lambda w: w.normal_(0, 0.02),
    "all equal": lambda w: w.fill_(0.02),
    "two values": lambda w: w.copy_(torch.rand(w.shape) < 0.3).mul_(0.02).add_(0.01),
    "sorted": lambda w: w.copy_(torch.linspace(0, 1, w.numel()).view(w.shape)),
    "denormals": lambda w: w.normal_().mul_(torch.finfo(w.dtype).tiny / 8),
}


def layers(
    total: int, tensors: int = 16, kind: str = "normal", dtype: torch.dtype = torch.float32
) -> nn.Module:
    """Linear layers with about ``total`` weights in all; only the weights are ever used."""
    torch.manual_seed(0)
    model = nn.Sequential()
    columns = max(min(1024, total // tensors), 1)
    for _ in range(tensors):
        layer = nn.Linear(1, 1, bias=False)
        weight = torch.empty(max(total // tensors // columns, 1), columns, dtype=dtype)
        layer.weight = nn.Parameter(KINDS[kind](weight), requires_grad=False)
        model.append(layer)
    return model


def weights(model: nn.Module) -> list[torch.Tensor]:
    """The weights of convolutions and linear layers."""
    kinds = (nn.Conv2d, nn.Linear)
    return [module.weight.detach() for module in model.modules() if isinstance(module, kinds)]


def networks() -> dict[str, nn.Module]:
    """Two networks that attacks are tried on here, with random weights."""
    import timm
    import torchvision

    torch.manual_seed(0)
    return {
        "squeezenet1_1": torchvision.models.squeezenet1_1(),
        "tf_efficientnet_lite0": timm.create_model("tf_efficientnet_lite0"),
    }
