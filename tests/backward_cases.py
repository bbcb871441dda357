"""Layers for gradient pruning, and an oracle that shares nothing with the code it checks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import secateurs as sc

P_PRUNE = 0.6


@dataclass(frozen=True)
class Layer:
    """One layer and the shape of what it is fed."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]

    def module(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        torch.manual_seed(0)
        return self.build().to(dtype)

    def inputs(self, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(self.shape, generator=generator).to(dtype).requires_grad_()


class StraightThrough(nn.Module):
    """What a gradient-pruned layer must do, said with ordinary operations.

    The value and the gradients to weight and bias come from the dense layer on a detached input;
    the gradient to the input comes from a layer whose weights are really pruned, of which only the
    gradient is taken: it minus itself is zero.
    """

    def __init__(self, layer: nn.Module, masks: dict[str, Tensor]):
        super().__init__()
        self.dense = layer
        self.masked = copy.deepcopy(layer).requires_grad_(False)
        for name, keep in masks.items():
            self.masked.get_parameter(name).mul_(keep)

    @property
    def weight(self) -> Tensor:
        """For networks that ask for its dtype."""
        return self.dense.weight

    def forward(self, x: Tensor) -> Tensor:
        pruned = self.masked(x)
        return self.dense(x.detach()) + (pruned - pruned.detach())


def straight_through(x: Tensor, weight: Tensor, keep: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same for a single linear operation."""
    pruned = F.linear(x, weight.detach() * keep)
    return F.linear(x.detach(), weight, bias) + (pruned - pruned.detach())


class StraightThroughLinears(TorchFunctionMode):
    """The reference for a module that hands weights to ``linear`` itself, known by their values.

    It knows each expert's part of a stack of experts, too.
    """

    def __init__(self, model: nn.Module, masks: sc.Masks):
        super().__init__()
        self.masks = []
        for name in masks:
            weight, keep = model.get_parameter(name), masks[name]
            parts = zip(weight, keep, strict=True) if weight.dim() == 3 else [(weight, keep)]
            self.masks += parts

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
            for weight, keep in self.masks:
                if torch.equal(args[1], weight):
                    pruned = args[0] @ (args[1].detach() * keep)
                    return args[0].detach() @ args[1] + (pruned - pruned.detach())
        if func is not F.linear:
            return func(*args, **kwargs)
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        for weight, keep in self.masks:
            if torch.equal(given["weight"].to(weight.dtype), weight):
                return straight_through(given["input"], given["weight"], keep, given.get("bias"))
        return func(*args, **kwargs)


def draw(model: nn.Module, p_prune: float = P_PRUNE, **options: object) -> sc.Masks:
    return sc.select(model, p_prune, **options).draw()


def oracle(layer: nn.Module, masks: sc.Masks) -> StraightThrough:
    """The reference for one layer, on a copy of it."""
    return StraightThrough(copy.deepcopy(layer), dict(masks))


def oracle_of(model: nn.Module, masks: sc.Masks) -> nn.Module:
    """The reference for a network that calls its layers: each masked one is replaced, on a copy."""
    model = copy.deepcopy(model)
    shared: dict[int, StraightThrough] = {}
    for name in masks:
        holder, _, attribute = name.rpartition(".")
        layer = model.get_submodule(holder)
        replacement = shared.setdefault(id(layer), StraightThrough(layer, {attribute: masks[name]}))
        for parent in model.modules():
            for child, module in parent._modules.items():
                if module is layer and not isinstance(parent, StraightThrough):
                    parent._modules[child] = replacement
    return model


def upstream(output: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)


def gradients(
    model: Callable[[Tensor], Tensor], x: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor, list[Tensor]]:
    """The output, and the gradients to the input and to the parameters that want one."""
    wanted = [t for t in (x, *parameters) if t.requires_grad]
    output = model(x)
    return output, list(torch.autograd.grad(output, wanted, upstream(output)))


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def close(first: list[Tensor], second: list[Tensor], **tolerances: float) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, **tolerances)


def same_as_oracle(model: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Compare outputs and all gradients of a pruned model with those of its reference."""
    output, found = gradients(model, x, trained(model))
    expected_output, expected = gradients(reference, x, trained(reference))
    torch.testing.assert_close(output, expected_output)
    close(found, expected)


class TwoBranches(nn.Module):
    """A small network with most of what matters: reuse, a norm, a branch, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4))
        self.again = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.body(x)
        x = self.again(self.again(x).relu())
        return self.head(x.mean((2, 3)))


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    return TwoBranches().to(dtype)


def images(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 3, 6, 6, generator=generator).to(dtype).requires_grad_()


def _conv(kind: type[nn.Module], *args: object, **options: object) -> Callable[[], nn.Module]:
    return lambda: kind(*args, **options)


_1D, _2D, _3D = nn.Conv1d, nn.Conv2d, nn.Conv3d
_T1, _T2, _T3 = nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d


def _columns() -> nn.Module:
    """The linear layer of transformers' GPT-2."""
    return pytest.importorskip("transformers.pytorch_utils").Conv1D(4, 5)


LAYERS = [
    Layer("conv1d", _conv(_1D, 3, 4, 3), (2, 3, 8)),
    Layer("conv1d-no-bias", _conv(_1D, 3, 4, 3, stride=2, padding=1, bias=False), (2, 3, 8)),
    Layer("conv1d-unbatched", _conv(_1D, 3, 4, 3), (3, 8)),
    Layer("conv2d", _conv(_2D, 3, 4, 3), (2, 3, 6, 6)),
    Layer("conv2d-no-bias", _conv(_2D, 3, 4, (3, 2), stride=(2, 1), bias=False), (2, 3, 6, 7)),
    Layer("conv2d-dilated", _conv(_2D, 3, 4, 3, dilation=(2, 1), padding=(2, 1)), (2, 3, 6, 6)),
    Layer("conv2d-unbatched", _conv(_2D, 3, 4, 3, padding=1), (3, 6, 6)),
    Layer("conv2d-groups", _conv(_2D, 4, 6, 3, groups=2), (2, 4, 6, 6)),
    Layer("conv2d-depthwise", _conv(_2D, 4, 8, 3, groups=4), (2, 4, 6, 6)),
    Layer("conv2d-pointwise", _conv(_2D, 4, 6, 1), (2, 4, 3, 3)),
    *(
        Layer(
            f"conv2d-{mode}", _conv(_2D, 3, 4, 3, padding=(2, 1), padding_mode=mode), (2, 3, 6, 6)
        )
        for mode in ("reflect", "replicate", "circular")
    ),
    Layer("conv1d-circular", _conv(_1D, 3, 4, 3, padding=2, padding_mode="circular"), (3, 8)),
    Layer("conv2d-same", _conv(_2D, 3, 4, 3, padding="same"), (2, 3, 6, 6)),
    Layer("conv2d-same-even", _conv(_2D, 3, 4, (2, 4), padding="same"), (2, 3, 6, 7)),
    Layer("conv2d-same-mixed", _conv(_2D, 3, 4, (3, 4), padding="same", dilation=3), (2, 3, 9, 9)),
    Layer("conv2d-same-unbatched", _conv(_2D, 3, 4, (3, 2), padding="same"), (3, 6, 7)),
    Layer(
        "conv2d-same-reflect", _conv(_2D, 3, 4, 4, padding="same", padding_mode="reflect"),
        (2, 3, 6, 6),
    ),
    Layer("conv1d-same-even", _conv(_1D, 3, 4, 4, padding="same", dilation=3), (2, 3, 12)),
    Layer("conv3d-same-even", _conv(_3D, 2, 3, (2, 3, 4), padding="same"), (1, 2, 4, 4, 5)),
    Layer("conv2d-valid", _conv(_2D, 3, 4, 3, padding="valid", stride=2), (2, 3, 6, 6)),
    Layer("conv3d", _conv(_3D, 2, 3, 2, stride=(1, 2, 1), padding=1), (1, 2, 3, 4, 3)),
    Layer("conv3d-unbatched", _conv(_3D, 2, 4, 2, groups=2, bias=False), (2, 3, 3, 4)),
    Layer("transposed1d", _conv(_T1, 3, 4, 3, stride=2, output_padding=1), (2, 3, 5)),
    Layer("transposed1d-unbatched", _conv(_T1, 3, 4, 3, dilation=2), (3, 5)),
    Layer("transposed2d", _conv(_T2, 3, 4, 3), (2, 3, 4, 4)),
    Layer(
        "transposed2d-all",
        _conv(_T2, 4, 6, (3, 2), stride=(3, 2), padding=1, output_padding=(2, 1), groups=2,
              dilation=(1, 3)),
        (2, 4, 4, 3),
    ),
    Layer("transposed2d-depthwise", _conv(_T2, 4, 8, 3, groups=4, bias=False), (2, 4, 4, 4)),
    Layer("transposed2d-unbatched", _conv(_T2, 3, 4, 2, stride=2), (3, 4, 4)),
    Layer(
        "transposed3d", _conv(_T3, 2, 4, 2, stride=2, groups=2, output_padding=1), (1, 2, 2, 3, 2)
    ),
    Layer("transposed3d-unbatched", _conv(_T3, 2, 3, 2, bias=False), (2, 2, 3, 2)),
    *(
        Layer(f"linear-{len(shape)}d", _conv(nn.Linear, 5, 4), shape)
        for shape in ((5,), (3, 5), (2, 3, 5), (2, 1, 3, 5))
    ),
    Layer("linear-no-bias", _conv(nn.Linear, 5, 4, bias=False), (3, 5)),
    Layer("linear-empty-batch", _conv(nn.Linear, 5, 4), (0, 5)),
    Layer("conv2d-empty-batch", _conv(_2D, 3, 4, 3), (0, 3, 6, 6)),
    Layer("linear-after-flatten", lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), (2, 3, 4)),
    Layer(
        "channels-last",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last),
        (2, 3, 6, 6),
    ),
    Layer("columns", _columns, (2, 3, 5)),
    Layer("columns-unbatched", _columns, (5,)),
    Layer("weight-shaped-input", _conv(nn.Linear, 4, 4), (4, 4)),
    Layer("weight-shaped-image", _conv(_2D, 3, 3, 3, padding=1), (3, 3, 3, 3)),
]  # fmt: skip
