import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import secateurs as sc
from helpers import assert_same
from repair.repair_cases import images, network, pruned_network
from secateurs import RepairWarning
from secateurs.repair import RepairOptions
from secateurs.repair.divergence import divergence


def solved_by_hand(rows: Tensor, wanted: Tensor, start: Tensor, keep: Tensor) -> Tensor:
    """Each output's kept weights, by a least-squares solver that is told of damping as of data."""
    damping = (RepairOptions().damping * rows.square().mean()).sqrt() * len(rows) ** 0.5
    found = torch.zeros_like(start)
    for row, (v, kept) in enumerate(zip(start, keep, strict=True)):
        left = torch.cat([rows, damping * torch.eye(rows.shape[1], dtype=rows.dtype)])[:, kept]
        right = torch.cat([wanted[:, row], damping * v])
        found[row, kept] = torch.linalg.lstsq(left, right[:, None]).solution[:, 0]
    return found


def test_each_layer_sees_what_the_repaired_ones_before_it_give() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4, bias=False)).double()
    inputs = torch.randn(30, 6, dtype=torch.float64)
    model = sc.global_prune(copy.deepcopy(dense), 0.5)
    first, second = (model[i].weight.detach() != 0 for i in (0, 2))
    (done,) = sc.repair(model, inputs, ["reconstruct"], batch_size=7)
    outputs = dense[0](inputs).detach()
    weight = solved_by_hand(
        inputs - inputs.mean(0), outputs - outputs.mean(0), dense[0].weight.detach(), first
    )
    bias = outputs.mean(0) - weight @ inputs.mean(0)
    assert torch.allclose(model[0].weight, weight, atol=1e-9)
    assert torch.allclose(model[0].bias, bias, atol=1e-9)
    # Without a bias nothing else meets the mean.
    hidden = (inputs @ weight.T + bias).relu()
    weight = solved_by_hand(hidden, dense(inputs).detach(), dense[2].weight.detach(), second)
    assert torch.allclose(model[2].weight, weight, atol=1e-9)
    assert all(after < before for before, after in done.layers.values())
    assert done.loss[1] < done.loss[0]


def moments(values: Tensor) -> list[Tensor]:
    rows = values.transpose(0, 1).flatten(1)
    return [rows.mean(1), rows.var(1, unbiased=False)]


def test_batch_norm_gives_each_channel_the_mean_and_variance_of_the_dense_network() -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)
    )
    dense(images(64, seed=2) + 1)
    dense.eval()
    model, shown = sc.global_prune(copy.deepcopy(dense), 0.5), images()
    weights = [one.clone() for one in model.parameters()]
    sc.repair(model, shown, "batchnorm", batch_size=9)
    for until in (2, 5):
        for found, wanted in zip(
            moments(model[:until](shown)), moments(dense[:until](shown)), strict=True
        ):
            assert torch.allclose(found, wanted, atol=1e-4)
    assert all(map(torch.equal, weights, model.parameters()))
    assert model[1].num_batches_tracked == dense[1].num_batches_tracked


def test_batch_norm_of_a_network_that_lost_nothing_stays() -> None:
    model = network()
    before = [one.clone() for one in model[1].buffers()]
    with sc.pruned(model, 0.0):
        sc.repair(model, images(5), "batchnorm")
        for found, wanted in zip(model[1].buffers(), before, strict=True):
            assert torch.allclose(found, wanted, atol=1e-6)


def test_channels_get_the_mean_and_scale_of_the_dense_network() -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(3, 6, 3)
    model, shown = sc.global_prune(copy.deepcopy(dense), 0.4), images()
    sc.repair(model, shown, ["channels"])
    for of in (torch.mean, torch.std):
        found, wanted = (of(layer(shown).transpose(0, 1).flatten(1), 1) for layer in (model, dense))
        assert torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("steps", [["batchnorm"], ["batchnorm", "reconstruct", "channels"]])
def test_batches_make_no_difference(steps: list[str]) -> None:
    found = []
    for batch_size in (1, 7, 40):
        model = pruned_network()
        sc.repair(model, images(), steps, batch_size=batch_size)
        found.append(model(images(8, seed=3)))
    assert all(torch.allclose(one, found[0], atol=1e-5) for one in found)


def test_at_large_layers_the_first_images_stand_for_all() -> None:
    model, few, shown = pruned_network(), pruned_network(), images()
    sc.repair(model, shown, ["batchnorm"], batch_size=4, memory=2 * 8 * 36 * 4 * 20)
    sc.repair(few, shown[:20], ["batchnorm"], batch_size=4)
    # Before BatchNorm, with 8 channels of 36 values, 20 images of each network fit.
    assert torch.allclose(model[1].running_mean, few[1].running_mean, atol=1e-6)


class Between(nn.Module):
    """A convolution and a BatchNorm with something between them that may work in place."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between
        self.convolution, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.between(self.convolution(x))).mean((2, 3))


def test_a_batch_norm_that_gets_what_was_changed_in_place_does_not_follow_the_layer() -> None:
    found = []
    for between in (torch.relu, torch.relu_):
        torch.manual_seed(0)
        model = Between(between)
        model(images(64, seed=2))
        sc.global_prune(model.eval(), 0.5)
        sc.repair(model, images(), ["batchnorm", "reconstruct"])
        found.append(model.state_dict())
    assert_same(*found)


class Fused(nn.Module):
    """Two linear layers that are computed as one, from a list of their weights."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.last = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.one.bias, self.two.bias])
        x = nn.functional.linear(x, torch.cat((self.one.weight, self.two.weight)), bias)
        return self.last(x.relu())


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 6, bias=False)
        self.last.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.embedding(x)).relu())


@pytest.mark.parametrize(
    ("build", "inputs", "left"),
    [
        (Fused, torch.randn(40, 6), ("one.weight", "two.weight")),
        (Tied, torch.arange(240).reshape(40, 6) % 6, ("embedding.weight",)),
    ],
)
def test_weights_that_are_not_used_by_one_layer_alone_are_left(
    build: Callable[[], nn.Module], inputs: Tensor, left: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    model = build()
    wanted = model(inputs)
    sc.global_prune(model, 0.5, layers="all", exclude="*.bias")
    before = {name: model.get_parameter(name).clone() for name in left}
    with pytest.warns(RepairWarning, match=f"^{left[0]}.* cannot be solved layer by layer"):
        (done,) = sc.repair(model, inputs, ["reconstruct"])
    assert done.left == left
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in left)
    # So the dense network was that of the originals, also where these were in a list.
    assert done.loss[1] == pytest.approx(divergence(model(inputs), wanted))


class Early(nn.Module):
    """Leaves out its last layer where the inputs are large."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.first(x)
        return found if x.max() > 10 else self.last(found.relu())


@pytest.mark.parametrize("large", [8, -1])
def test_images_that_leave_out_a_layer_are_an_error(large: int) -> None:
    torch.manual_seed(0)
    model, inputs = sc.global_prune(Early(), 0.5), torch.randn(24, 4)
    inputs[large] = 20.0
    with pytest.raises(sc.FailureError, match=r"one order \(at last\.weight\)"):
        sc.repair(model, inputs, ["reconstruct"])


def test_the_same_every_time() -> None:
    found = []
    for _ in range(2):
        model = pruned_network()
        sc.repair(model, images(), ["batchnorm", "reconstruct", "distill"], iterations=5)
        found.append(model.state_dict())
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


class Attention(nn.Module):
    """Self-attention over tokens, and a head, by way of torch's own layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1)  # tokens come first
        self.head = nn.Linear(8, 9)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.block(self.embed(tokens).transpose(0, 1)).transpose(0, 1))


def test_attention_projections_and_tokens() -> None:
    torch.manual_seed(0)
    model = sc.global_prune(Attention(), 0.4)
    tokens = torch.randint(0, 9, (40, 6), generator=torch.Generator().manual_seed(0))
    (done, _) = sc.repair(model, tokens, ["reconstruct", "distill"], iterations=20)
    assert set(done.layers) == {target.name for target in sc.find_targets(model)}
    assert done.left == ()
    assert done.loss[1] < done.loss[0]
    assert done.layers["block.self_attn.in_proj_weight"][1] < 0.5
    assert sc.sparsity(model).ratio == pytest.approx(0.4, abs=0.001)


class Cross(nn.Module):
    """Attention whose queries, keys and values differ, in one packed weight or in three."""

    def __init__(self, packed: bool) -> None:
        super().__init__()
        wide = None if packed else 6
        self.packed = packed
        self.attention = nn.MultiheadAttention(4, 2, kdim=wide, vdim=wide, batch_first=True)

    def inputs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (x[:, :2, :4], x[..., 2:], x[..., 1:5]) if self.packed else (x[:, :2, :4], x, x)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(*self.inputs(x), need_weights=False)[0]

    def projections(self) -> list[Tensor]:
        names = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        if self.packed:
            return list(self.attention.in_proj_weight.detach().chunk(3))
        return [getattr(self.attention, name).detach() for name in names]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("steps", [["reconstruct"], ["sparsegpt", "reconstruct"]])
def test_projections_are_solved_each_with_its_own_inputs(packed: bool, steps: list[str]) -> None:
    torch.manual_seed(0)
    dense = Cross(packed).double().eval()
    nn.init.normal_(dense.attention.in_proj_bias)
    inputs = torch.randn(20, 3, 6, dtype=torch.float64)
    model = sc.global_prune(copy.deepcopy(dense), 0.4)
    counts = [int((one == 0).sum()) for one in model.projections()]
    (done,) = sc.repair(model, inputs, steps, batch_size=6)
    assert done.left == () and len(done.layers) == 4
    assert [int((one == 0).sum()) for one in model.projections()] == counts
    biases = (one.attention.in_proj_bias.detach().chunk(3) for one in (dense, model))
    shown = dense.inputs(inputs)
    for start, found, bias, new, rows in zip(
        dense.projections(), model.projections(), *biases, shown, strict=True
    ):
        rows = rows.flatten(0, 1)
        outputs = (rows @ start.T + bias).detach()
        centred = rows - rows.mean(0), outputs - outputs.mean(0)
        weight = solved_by_hand(*centred, start, found != 0)
        assert torch.allclose(found, weight, atol=1e-9)
        assert torch.allclose(new, outputs.mean(0) - weight @ rows.mean(0), atol=1e-9)
    assert all(torch.equal(value, dense.state_dict()[n])
               for n, value in sc.restore(model).state_dict().items())  # fmt: skip


def test_the_dense_network_attends_with_its_own_packed_weight() -> None:
    torch.manual_seed(0)
    dense = Cross(packed=True).eval()
    model = sc.global_prune(copy.deepcopy(dense), 0.5)
    inputs = torch.randn(20, 3, 6)
    (done,) = sc.repair(model, inputs, ["distill"], iterations=1, learning_rate=1e-12)
    wanted, found = (one(inputs).flatten(0, 1).log_softmax(-1) for one in (dense, model))
    expected = nn.functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
    assert done.loss[0] == pytest.approx(expected.item(), rel=1e-3)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv2d(4, 6, 2, groups=2, stride=2),
        lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1),
        lambda: nn.Conv1d(4, 3, 2, dilation=2),
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2, padding=1, output_padding=1),
        lambda: nn.ConvTranspose1d(4, 3, 2),
    ],
)
def test_convolutions_of_every_kind_are_solved(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    dense = build().double()
    inputs = torch.randn(3, 4, *(4,) * (dense.weight.dim() - 2), dtype=torch.float64)
    model = sc.global_prune(copy.deepcopy(dense), 0.5)
    keep = model.weight.detach() != 0
    channels = dense(inputs).transpose(0, 1).flatten(1)
    rows = {}
    for channel, values in enumerate(channels):
        # The derivative of an output by an element of the weight is what that element meets.
        found = [torch.autograd.grad(v, dense.weight, retain_graph=True)[0] for v in values]
        rows[channel] = torch.stack(found)
    sc.repair(model, inputs, ["reconstruct"], batch_size=2)
    weight, bias = torch.zeros_like(dense.weight), torch.zeros_like(dense.bias)
    for channel, met in rows.items():
        own = met.abs().sum(0) > 0
        seen, wanted = met[:, own], channels[channel].detach()[:, None]
        solved = solved_by_hand(
            seen - seen.mean(0), wanted - wanted.mean(0), dense.weight.detach()[own][None],
            keep[own][None],
        )  # fmt: skip
        weight.data[own] = solved[0]
        bias.data[channel] = wanted.mean() - solved[0] @ seen.mean(0)
    assert torch.allclose(model.weight, weight, atol=1e-9)
    assert torch.allclose(model.bias, bias, atol=1e-9)
