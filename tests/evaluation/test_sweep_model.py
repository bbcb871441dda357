"""What a sweep does to the model it is given: nothing that lasts."""

import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_nets import IMAGES, Images, Net, loader, network, outcome
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

import secateurs as sc
from secateurs.evaluation import sweep

GRID: dict[str, Any] = {
    "p_prune": [0, 0.5, 0.9],
    "p_bern": [1, 0.5],
    "prune_type": ["global", "gradient"],
    "draws": 2,
}


def bits(model: nn.Module) -> dict[str, bytes]:
    state = model.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in state.items()}


def anatomy(model: nn.Module) -> list[Any]:
    """Classes, modes, the Parameters themselves, and what else hangs on the modules."""
    return [
        {
            "class": type(m),
            "training": m.training,
            "parameters": [(name, id(p)) for name, p in m.named_parameters()],
            "attributes": sorted(vars(m)),
            "buffers": sorted(m._buffers),
            "not saved": set(m._non_persistent_buffers_set),
        }
        for m in model.modules()
    ]


def mixed_modes() -> Net:
    model = network().train()
    model.norm.eval()
    model.head.eval()
    model.first.weight.requires_grad_(False)
    with torch.no_grad():  # a sign that survives only if bits are kept
        model.second.weight[0, 0] = -0.0
    return model


def test_weights_modes_and_objects_are_as_before() -> None:
    model = mixed_modes()
    before, build = bits(model), anatomy(model)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    sweep(model, loader(), **GRID)
    assert bits(model) == before
    assert anatomy(model) == build
    assert not model.first.weight.requires_grad
    for name, grad in grads.items():
        assert torch.equal(model.get_parameter(name).grad, grad)


def test_it_is_scored_in_eval_mode_whatever_its_modes() -> None:
    assert outcome(sweep(mixed_modes(), loader(), **GRID)) == outcome(
        sweep(mixed_modes().eval(), loader(), **GRID)
    )


class Failing(nn.Module):
    """Raises in forward pass number ``when``."""

    def __init__(self, when: int, error: BaseException):
        super().__init__()
        self.net, self.when, self.error = mixed_modes(), when, error

    def forward(self, images: Tensor) -> Tensor:
        if self.net.passes == self.when:
            raise self.error
        return self.net(images)


@pytest.mark.parametrize("when", [0, 1, 2, 5, 8, 40])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broken"), SystemExit(3)])
def test_everything_is_put_back_when_it_breaks_off(when: int, error: BaseException) -> None:
    model = Failing(when, error)
    before, build = bits(model), anatomy(model)
    with pytest.raises(type(error)):
        sweep(model, loader(), **GRID)
    assert bits(model) == before
    assert anatomy(model) == build


def test_everything_is_put_back_when_reading_fails() -> None:
    def fail(index: int) -> None:
        if index == 20:
            raise OSError("no such disk")

    model = mixed_modes()
    before, build = bits(model), anatomy(model)
    with pytest.raises(OSError, match="no such disk"):
        sweep(model, loader(Images(before=fail)), **GRID)
    assert bits(model) == before
    assert anatomy(model) == build


def test_everything_is_put_back_when_ctrl_c_strikes_at_the_very_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0

    def interrupted(model: nn.Module) -> nn.Module:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return sc.restore(model)

    monkeypatch.setattr(sys.modules["secateurs.evaluation.measured_model"], "restore", interrupted)
    model = mixed_modes()
    before, build = bits(model), anatomy(model)
    with pytest.raises(KeyboardInterrupt):
        sweep(model, loader(), **GRID)
    assert bits(model) == before
    assert anatomy(model) == build


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_a_pruned_model_is_swept_from_its_originals_and_pruned_again_afterwards(prune: Any) -> None:
    model = network()
    expected, dense = sweep(network(), loader(), **GRID), bits(model)
    prune(model, 0.9, granularity="filter")
    before, build, ratio = bits(model), anatomy(model), sc.sparsity(model).ratio
    assert outcome(sweep(model, loader(), **GRID)) == outcome(expected)
    assert bits(model) == before
    assert anatomy(model) == build
    assert sc.sparsity(model).ratio == ratio > 0.8
    assert bits(sc.restore(model)) == dense


@pytest.mark.parametrize("prune", [sc.global_prune, sc.gradient_prune])
def test_a_model_trained_while_it_was_pruned_is_swept_as_it_is(prune: Any) -> None:
    model, plain = prune(network(), 0.5), network()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    plain.load_state_dict(model.state_dict())
    originals = [m.weight_orig.clone() for m in (model.first, model.head)]
    before, build = bits(model), anatomy(model)
    assert outcome(sweep(model, loader(), **GRID)) == outcome(sweep(plain, loader(), **GRID))
    assert bits(model) == before
    assert anatomy(model) == build
    for module, original in zip((model.first, model.head), originals, strict=True):
        assert torch.equal(module.weight_orig, original)


def test_what_a_module_keeps_for_later_can_be_differentiated() -> None:
    class Caching(Net):
        table: Tensor | None = None

        def forward(self, images: Tensor) -> Tensor:
            if self.table is None:
                self.table = torch.linspace(0, 1, 7, device=images.device)
            return super().forward(images) * self.table

    model = Caching()
    sweep(model, loader(), p_prune=[0.5])
    pixels = torch.randn(2, 1, 8, 8, requires_grad=True)
    model(pixels).sum().backward()
    assert pixels.grad is not None


def test_the_model_stays_where_it_is_unless_a_device_is_named() -> None:
    class Parted(Net):
        moves = 0

        def _apply(self, fn: Any, recurse: bool = True) -> Any:
            self.moves += 1
            return super()._apply(fn, recurse)

    model = Parted()
    sweep(model, loader(), p_prune=0.5)
    assert model.moves == 0
    sweep(model, loader(), p_prune=0.5, device="cpu")
    assert model.moves == 1


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_is_read_once_and_the_dense_network_runs_once(workers: int) -> None:
    images, model = Images(), network()
    grid: dict[str, Any] = {"p_prune": [0, 0.3, 0.6], "p_bern": [1, 0.5, 0], "draws": 2}
    rows = sweep(
        model,
        loader(images, num_workers=workers),
        granularity=["weight", "kernel"],
        scope=["global", "layer"],
        **grid,
    )
    assert len(rows) == 4 * 9
    if not workers:
        assert images.reads == list(range(IMAGES))
    variants = 1 + 4 * (2 + 2 * 2)  # dense, and a setting's two ratios: once, and drawn twice
    assert model.passes == variants * 6


def test_a_generator_of_batches_is_read_once() -> None:
    reads = 0

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal reads
        for batch in loader():
            reads += 1
            yield batch

    rows = sweep(network(), batches(), p_prune=[0, 0.5])
    assert reads == 6
    assert {row.batch_size for row in rows} == {0}
    assert outcome(rows) == outcome(sweep(network(), loader(), p_prune=[0, 0.5]))


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        images = Images()
        return (images[i] for i in range(IMAGES))


@pytest.mark.parametrize(
    "read",
    [
        lambda: DataLoader(Images(), batch_size=8, shuffle=True),
        lambda: DataLoader(Stream(), batch_size=8),
        lambda: DataLoader(Images(), batch_sampler=[range(40, 46), range(40)]),
        lambda: DataLoader(Images(), batch_size=None),
        lambda: list(loader()),
    ],
)
def test_any_loader_gives_the_same_counts(read: Any) -> None:
    source = read()
    if (
        isinstance(source, DataLoader)
        and source.batch_size is None
        and source.batch_sampler is None
    ):
        source = [(image[None], torch.tensor([label])) for image, label in source]
    found = sweep(network(), source, p_prune=[0, 0.5, 0.9])
    expected = sweep(network(), loader(), p_prune=[0, 0.5, 0.9])
    assert outcome(found) == outcome(expected)


def test_a_loader_that_drops_the_last_batch_is_counted_as_it_reads() -> None:
    (row,) = sweep(network(), loader(drop_last=True), p_prune=0.5)
    assert row.count == 40


class Allocations(TorchDispatchMode):
    """Bytes of the storages that were made under it and are still there, now and at most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.as_strided.default and args[0].element_size() == 1:
            # Masks and levels are cut from memory that numpy makes, which no operator shows.
            storage = args[0].untyped_storage()
            if storage._cdata not in self.known:
                self.note(storage)
        given = {t.untyped_storage()._cdata for t in tensors((args, kwargs))}
        outputs = func(*args, **(kwargs or {}))
        for found in tensors(outputs):
            if found.untyped_storage()._cdata not in given:
                self.note(found.untyped_storage())
        return outputs

    def note(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()

        def forget(_: object) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, forget)
        self.now += size
        self.most = max(self.most, self.now)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("prune_type", ["global", "gradient"])
@pytest.mark.parametrize("scopes", [["global"], ["global", "layer"]])
@pytest.mark.parametrize("ratios", [[0.5], [i / 8 for i in range(8)]])
def test_memory_is_two_copies_a_mask_and_a_byte_a_unit_for_each_setting(
    ratios: list[float], scopes: list[str], prune_type: str
) -> None:
    class Wide(nn.Sequential):
        during = 0

        def forward(self, images: Tensor) -> Tensor:
            if not self.during:
                allocations.most = 0  # what choosing took, which does not grow with the model
            self.during = max(self.during, allocations.now)
            return super().forward(images)

    model = Wide(nn.Flatten(), nn.Linear(64, 4000), nn.ReLU(), nn.Linear(4000, 50))
    weights = 4 * sum(p.numel() for p in model.parameters())
    elements, filters = 64 * 4000 + 4000 * 50, 4050
    batch = [(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]))]
    with Allocations() as allocations:
        sweep(
            model,
            batch,
            p_prune=ratios,
            p_bern=[1, 0.5],
            granularity=["weight", "filter"],
            scope=scopes,
            prune_type=prune_type,
        )
        gc.collect()
        assert allocations.now == 0
    levels, slack = len(scopes) * (elements + filters), 1 << 16
    mask, second_copy = elements, weights if prune_type == "global" else 0
    assert levels + mask <= model.during <= levels + mask + second_copy + slack
    # While a variant is made, for a moment: candidates, masks, and what a layer's product takes.
    assert allocations.most <= levels + second_copy + 3 * elements + slack
