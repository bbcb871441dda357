"""Models to test with: a new line in ``CASES`` inherits every test that runs over them."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

import reference

FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2fnuz,
)
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *FLOAT8)
GRANULARITIES = ("weight", "kernel", "filter")
SCOPES = ("global", "layer")


def exact(examples: int) -> settings:
    """Settings of a property test that gives the same result every time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@dataclass(frozen=True)
class Case:
    """A model, something to feed it, and what competes in it by default.

    ``targets`` names the target weights in order; ``transposed`` gives the groups of those that
    belong to transposed convolutions, ``outputs`` the dimensions of an output of those that are
    laid out in another way: see `reference.Weight`.
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    targets: tuple[str, ...]
    transposed: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build().eval()

    def run(self, model: nn.Module) -> Tensor:
        return model(self.inputs()).double()

    def weights(self, model: nn.Module) -> dict[str, reference.Weight]:
        """The target weights as plain numbers."""
        return {
            name: reference.Weight.of(
                model.get_parameter(name), self.transposed.get(name), self.outputs.get(name)
            )
            for name in self.targets
        }


def bits(tensor: Tensor) -> Tensor:
    """The bytes of a tensor in flat order: what bit-exact means."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).clone()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """The bytes of all parameters and persistent buffers."""
    return {name: bits(value) for name, value in model.state_dict().items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def flags(mask: Tensor) -> list[bool]:
    return mask.reshape(-1).tolist()


class Reads(nn.Module):
    """A layer whose weight is cast when used, so that any dtype runs."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype):
        super().__init__()
        self.layer = layer.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.layer.bias is None else self.layer.bias.to(x.dtype)
        return F.linear(x, self.layer.weight.to(x.dtype), bias)


class Attention(nn.Module):
    def __init__(self, kdim: int | None = None):
        super().__init__()
        self.kdim = kdim
        self.attention = nn.MultiheadAttention(4, 2, kdim=kdim, vdim=kdim, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        memory = x if self.kdim is None else x[..., : self.kdim]
        return self.attention(x, memory, memory, need_weights=False)[0]


class Tied(nn.Module):
    """A language model's head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens)))


class Twins(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.body = nn.Linear(4, 4)
        self.again = nn.Linear(4, 4, bias=False)
        self.again.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.body(self.first(x)))


class Shared(nn.Module):
    """One module under two names, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.again = self.first
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.again(self.first(x)))


class ScaledConv(nn.Conv2d):
    """A subclass with a forward of its own, as networks with equalised learning rates have."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * 0.5, self.bias)


class StackedExperts(nn.Module):
    """Three experts in one tensor, (out, in) or (in, out) each; all see every input."""

    def __init__(self, columns: bool) -> None:
        super().__init__()
        up, down = ((4, 10), (5, 4)) if columns else ((10, 4), (4, 5))
        self.columns = columns
        self.gate_up_proj = nn.Parameter(torch.randn(3, *up))
        self.down_proj = nn.Parameter(torch.randn(3, *down))
        self.down_proj_bias = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for i in range(3):
            up, down = self.gate_up_proj[i], self.down_proj[i]
            both = x @ up if self.columns else F.linear(x, up)
            gate, value = both.chunk(2, -1)
            hidden = gate.tanh() * value
            y = y + (hidden @ down if self.columns else F.linear(hidden, down))
        return y + self.down_proj_bias.sum(0)


def _conv1d() -> nn.Module:
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D
    return nn.Sequential(layer(6, 4), nn.Tanh(), layer(3, 6))


def _depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1, bias=False)
    )


def _transposed_view() -> nn.Module:
    model = nn.Linear(4, 3)
    model.weight = nn.Parameter(model.weight.detach().t().contiguous().t())
    assert not model.weight.is_contiguous()
    return model


def _slices() -> nn.Module:
    """Two weights that are views into one flat buffer, one of them with gaps."""
    flat = torch.randn(64)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight = nn.Parameter(flat[:16].view(4, 4))
    model[1].weight = nn.Parameter(flat[16:48].view(4, 8)[:, ::2])
    return model


def _frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    model[0].requires_grad_(False)
    return model


def _ties() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1), nn.Flatten())
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


def _mixed() -> nn.Module:
    kinds = (torch.float64, torch.float16, torch.float8_e5m2, torch.float32, torch.bfloat16)
    return nn.Sequential(*(Reads(nn.Linear(4, 4), dtype) for dtype in kinds))


def _of(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(shape, generator=torch.Generator().manual_seed(1))


_PACKED = ("attention.in_proj_weight", "attention.out_proj.weight")
_SEPARATE = (
    "attention.q_proj_weight",
    "attention.k_proj_weight",
    "attention.v_proj_weight",
    "attention.out_proj.weight",
)

CASES = [
    Case("conv1d", lambda: nn.Conv1d(2, 3, 3), _of(1, 2, 6), ("weight",)),
    Case("conv2d", lambda: nn.Conv2d(2, 3, 3, bias=False), _of(1, 2, 5, 5), ("weight",)),
    Case("conv3d", lambda: nn.Conv3d(2, 3, 2), _of(1, 2, 3, 3, 3), ("weight",)),
    Case("grouped", lambda: nn.Conv2d(4, 6, 3, groups=2), _of(1, 4, 5, 5), ("weight",)),
    Case("depthwise", _depthwise, _of(1, 4, 5, 5), ("0.weight", "3.weight")),
    *(
        Case(
            f"transposed{i}d", lambda c=c: c(4, 6, 3, groups=2), _of(1, 4, *[3] * i), ("weight",),
            {"weight": 2},
        )
        for i, c in enumerate((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), 1)
    ),
    Case(
        "transposed", lambda: nn.ConvTranspose2d(3, 2, 2), _of(1, 3, 3, 3), ("weight",),
        {"weight": 1},
    ),
    Case(
        "transposed-depthwise", lambda: nn.ConvTranspose2d(3, 6, 1, groups=3), _of(1, 3, 3, 3),
        ("weight",), {"weight": 3},
    ),
    Case("linear", lambda: nn.Linear(5, 4), _of(2, 5), ("weight",)),
    Case(
        "columns", _conv1d, _of(2, 4), ("0.weight", "2.weight"),
        outputs={"0.weight": (1,), "2.weight": (1,)},
    ),
    *(
        Case(
            f"experts-{'columns' if last else 'rows'}", lambda last=last: StackedExperts(last),
            _of(2, 4), ("gate_up_proj", "down_proj"),
            outputs=dict.fromkeys(("gate_up_proj", "down_proj"), (0, 2 if last else 1)),
        )
        for last in (False, True)
    ),
    Case("attention", Attention, _of(1, 3, 4), _PACKED),
    Case("attention-separate", lambda: Attention(kdim=3), _of(1, 3, 4), _SEPARATE),
    Case("tied", Twins, _of(2, 4), ("first.weight", "body.weight")),
    Case("shared", Shared, _of(1, 2, 4, 4), ("first.weight",)),
    Case("subclass", lambda: ScaledConv(2, 3, 3), _of(1, 2, 5, 5), ("weight",)),
    Case(
        "channels-last",
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last),
        _of(1, 3, 5, 5),
        ("0.weight",),
    ),
    Case("transposed-view", _transposed_view, _of(2, 4), ("weight",)),
    Case("slices", _slices, _of(2, 4), ("0.weight", "1.weight")),
    Case("frozen", _frozen, _of(2, 4), ("0.weight", "1.weight")),
    Case("ties", _ties, _of(4, 4), ("0.weight", "1.weight")),
    Case("mixed", _mixed, _of(2, 4), tuple(f"{i}.layer.weight" for i in range(5))),
    *(
        Case(str(d).removeprefix("torch."), lambda d=d: Reads(nn.Linear(4, 4), d), _of(2, 4),
             ("layer.weight",))
        for d in DTYPES
    ),
]  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)
every_scope = pytest.mark.parametrize("scope", SCOPES)
