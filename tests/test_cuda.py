"""What is promised of other devices, on one: the same candidates, the same draws, no waiting."""

import copy
import warnings
from collections.abc import Generator
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secateurs as sc
from secateurs.cli.loading import make_loader
from secateurs.evaluation.forward import Forward
from secateurs.zoo import LoadedData

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 8, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10)).eval()


@pytest.fixture
def model() -> nn.Module:
    made = network()
    made(torch.rand(1, 3, 16, 16))
    return made


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("granularity", ["weight", "kernel", "filter"])
@pytest.mark.parametrize("p_prune", [0, 0.01, 0.5, 0.99, 1])
def test_the_same_candidates_and_draws(
    model: nn.Module, dtype: torch.dtype, granularity: str, p_prune: float
) -> None:
    model.to(dtype)
    here = sc.select(model, p_prune, granularity=granularity)
    there = sc.select(model.cuda(), p_prune, granularity=granularity)
    for name, chosen in here.chosen.items():
        assert torch.equal(there.chosen[name].cpu(), chosen)
    drawn = there.draw(0.3, seed=1)
    assert all(torch.equal(drawn[name].cpu(), m) for name, m in here.draw(0.3, seed=1).items())
    before = {name: p.clone() for name, p in model.named_parameters()}
    sc.apply_masks(model, drawn)
    assert sc.sparsity(model).ratio == pytest.approx(drawn.sparsity)
    for name, mask in drawn.items():
        assert torch.equal(model.get_parameter(name), before[name] * mask)
    sc.restore(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_model_on_two_devices(model: nn.Module) -> None:
    here = sc.select(model, 0.4)
    model[1].cuda()
    there = sc.select(model, 0.4)
    for name, chosen in here.chosen.items():
        assert torch.equal(there.chosen[name].cpu(), chosen)
    drawn = there.draw(0.5, seed=3)
    assert all(torch.equal(drawn[n].cpu(), m) for n, m in here.draw(0.5, seed=3).items())


def test_ties_over_two_devices() -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4)))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    model[1].cuda()
    chosen = sc.select(model, 0.6).chosen.values()
    assert [int(c.sum()) for c in chosen] == [16, 16, 6, 0]


def test_a_redraw_does_not_wait_for_the_device(model: nn.Module) -> None:
    model.cuda()
    candidates = sc.select(model, 0.5)
    generator = torch.Generator("cuda").manual_seed(0)
    masks = candidates.draw(0.3, generator=generator)
    sc.apply_masks(model, masks)
    torch.cuda.set_sync_debug_mode("error")
    try:
        sc.apply_masks(model, candidates.draw(0.3, generator=generator, out=masks))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_redraw_in_a_cuda_graph_draws_afresh(model: nn.Module) -> None:
    model.cuda()
    candidates = sc.select(model, 0.5)
    generator = torch.Generator("cuda").manual_seed(0)
    masks = candidates.draw(0.5, generator=generator)
    sc.apply_masks(model, masks)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        sc.apply_masks(model, candidates.draw(0.5, generator=generator, out=masks))
    seen = []
    for _ in range(3):
        graph.replay()
        seen.append(model[0].weight.detach().clone())
    torch.cuda.synchronize()
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("prune_type", ["global", "gradient"])
def test_pruning_training_and_pruning_again_keeps_what_was_learned(
    model: nn.Module, fused: bool, prune_type: str
) -> None:
    """Fused optimizers do not count their writes: the new gradients tell."""
    model.cuda()
    masks = sc.select(model, 0.5).draw()
    sc.apply_masks(model, masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    model(torch.rand(2, 3, 16, 16, device="cuda")).square().sum().backward()
    optimizer.step()
    learned = {name: p.detach().clone() for name, p in model.named_parameters()}
    if prune_type == "global":
        sc.apply_masks(model, masks)
        for name, mask in masks.items():
            assert torch.equal(model.get_parameter(name), learned[name] * mask)
    else:
        sc.gradient_prune(model, 0.5)
    sc.restore(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, learned[name]), name


def test_measuring_what_was_trained_leaves_it(model: nn.Module) -> None:
    sc.global_prune(model.cuda(), 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    model(torch.rand(2, 3, 16, 16, device="cuda")).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    learned = {name: p.detach().clone() for name, p in model.named_parameters()}
    plain = copy.deepcopy(sc.make_permanent(copy.deepcopy(model)))
    assert sc.select(model, 0.3) == sc.select(plain, 0.3)
    assert all(torch.equal(p, learned[name]) for name, p in model.named_parameters())
    with pytest.warns(sc.LostTrainingWarning):
        sc.restore(model)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_zeros_in_the_place_of_kept_weights_are_not_lost(
    model: nn.Module, granularity: str
) -> None:
    sc.global_prune(model.cuda(), 0.5, granularity=granularity, scope="layer")
    with torch.no_grad():
        model[0].weight.masked_fill_(model[0].weight == model[0].weight.max(), 0.0)
        nn.init.zeros_(model[2].weight)
    learned = {name: p.detach().clone() for name, p in model.named_parameters()}
    sc.restore(sc.global_prune(model, 0.3))
    for name in ("0.weight", "2.weight"):
        assert torch.equal(model.get_parameter(name), learned[name])


def test_neighbours_are_those_of_semi_structured_tensors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3), nn.Linear(128, 64)).half()
    chosen = sc.select(model, scope="2:4")
    sc.global_prune(model.cuda(), scope="2:4")
    for layer, candidates in zip(model, chosen.chosen.values(), strict=True):
        assert torch.equal((layer.weight == 0).cpu(), candidates)
        matrix = layer.weight.detach().flatten(1)
        sparse = torch.sparse.to_sparse_semi_structured(matrix)
        assert torch.equal(sparse.to_dense(), matrix)
        x = torch.randn(matrix.shape[1], 64, device="cuda", dtype=torch.half)
        assert torch.allclose(torch.mm(sparse, x), matrix @ x, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("overwritten", [True, False])
def test_a_redraw_beside_new_gradients_does_not_wait_for_the_device(
    model: nn.Module, overwritten: bool
) -> None:
    model.cuda()
    candidates = sc.select(model, 0.5)
    generator = torch.Generator("cuda").manual_seed(0)
    masks = candidates.draw(0.3, generator=generator)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sc.apply_masks(model, masks)
    model(torch.rand(2, 3, 16, 16, device="cuda")).square().sum().backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        drawn = candidates.draw(0.3, generator=generator, out=masks if overwritten else None)
        sc.apply_masks(model, drawn)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for name, mask in drawn.items():
        assert torch.equal(model.get_parameter(name), before[name] * mask)


def test_draws_on_the_device_are_reproducible_and_have_the_frequency() -> None:
    candidates = sc.select(nn.Linear(1024, 1024, device="cuda"), 1)
    first, again = (
        candidates.draw(0.3, generator=torch.Generator("cuda").manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first["weight"], again["weight"])
    assert abs(first.sparsity - 0.3) < 4 * (0.21 / 2**20) ** 0.5


@contextmanager
def counted_waits() -> Generator[list[object]]:
    """Collect every wait for the device that torch notices."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")
        seen[:] = [w for w in seen if "called a synchronizing" in str(w.message)]


@pytest.mark.parametrize("fill", ["random", "equal"])
def test_selection_does_not_wait_for_the_device_at_each_tensor(fill: str) -> None:
    model = nn.Sequential(*(nn.Linear(32, 32) for _ in range(60))).cuda()
    if fill == "equal":
        for parameter in model.parameters():
            nn.init.ones_(parameter)
    with counted_waits() as seen:
        candidates = sc.select(model, 0.31)
    assert candidates.count == round(0.31 * 1024 * 60)
    assert 0 < len(seen) <= 12


def test_counting_waits_once(model: nn.Module) -> None:
    model.cuda()
    sc.global_prune(model, 0.5)
    with counted_waits() as seen:
        assert sc.sparsity(model).ratio == pytest.approx(0.5, abs=1e-3)
    assert len(seen) == 1


def test_running_out_of_memory_halves_the_batch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network.cuda().eval()
    images = torch.rand(32, 3, 256, 256)
    said: list[str] = []
    device = torch.device("cuda", torch.cuda.current_device())
    forward = Forward(network, device, amp=False, warn=said.append)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_allocated() + 200 * 2**20  # activations take 16 MiB an image
    torch.cuda.set_per_process_memory_fraction(
        room / torch.cuda.get_device_properties(device).total_memory
    )
    try:
        logits = forward(forward.to_device(images))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()
    assert said and forward.largest is not None and forward.largest < 32
    with torch.no_grad():
        torch.testing.assert_close(logits, network(images.cuda()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_for_the_device_are_pinned(workers: int) -> None:
    images, labels = torch.rand(40, 3, 16, 16), torch.arange(40) % 10
    data = LoadedData(TensorDataset(images, labels), "made", "all", None)  # pyright: ignore
    device = torch.device("cuda")
    loader = make_loader(data, batch_size=16, workers=workers, device=device)
    batches = [batch for batch, _ in loader]
    assert all(batch.is_pinned() for batch in batches)
    assert torch.equal(torch.cat(batches), images)


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
def test_a_sweep_on_the_device_under_autocast(model: nn.Module, prune_type: str) -> None:
    torch.manual_seed(0)
    data = TensorDataset(torch.rand(64, 3, 16, 16), torch.arange(64) % 10)
    loader = DataLoader(data, batch_size=16, pin_memory=True)
    options = {"p_prune": [0, 0.5], "prune_type": prune_type, "progress": False}
    before = {name: p.clone() for name, p in model.named_parameters()}
    here = sc.evaluation.sweep(model, loader, **options)
    there = sc.evaluation.sweep(model, loader, device="cuda", **options)
    halves = sc.evaluation.sweep(model, loader, device="cuda", amp=True, **options)
    for row, other, half in zip(here, there, halves, strict=True):
        assert (row.count, row.achieved) == (other.count, other.achieved)
        assert other.loss == pytest.approx(row.loss, rel=1e-3)
        assert half.loss == pytest.approx(row.loss, rel=1e-2)
        assert half.loss != other.loss
    assert all(torch.equal(p.cpu(), before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
def test_a_surrogate_on_the_device_is_the_network_under_its_masks(
    model: nn.Module, prune_type: str
) -> None:
    model.double().cuda()
    images = torch.rand(4, 3, 16, 16, dtype=torch.float64, device="cuda")

    def gradient(network: nn.Module) -> torch.Tensor:
        inputs = images.clone().requires_grad_()
        network(inputs).logsumexp(1).sum().backward()
        assert inputs.grad is not None
        return inputs.grad

    surrogate = sc.Diversified(model, 0.5, 0.5, prune_type=prune_type, seed=3)
    first, second = gradient(surrogate), gradient(surrogate)
    oracle = sc.apply_masks(copy.deepcopy(model), surrogate.masks, prune_type)
    torch.testing.assert_close(second, gradient(oracle))
    assert not torch.equal(first, second)
    surrogate.restart(3)
    torch.testing.assert_close(gradient(surrogate), first)


def test_gradient_pruning_under_autocast_and_a_compiler(model: nn.Module) -> None:
    model.cuda()
    images = torch.rand(4, 3, 16, 16, device="cuda", requires_grad=True)
    with torch.autocast("cuda", torch.float16):
        dense = model(images).float()
        sc.gradient_prune(model, 0.5)
        pruned = model(images).float()
    assert torch.equal(dense, pruned)
    sc.restore(model)
    sc.gradient_prune(model, 0.5)
    (eager,) = torch.autograd.grad(model(images).sum(), images)
    (compiled,) = torch.autograd.grad(torch.compile(model)(images).sum(), images)
    torch.testing.assert_close(eager, compiled, rtol=1e-3, atol=1e-4)
