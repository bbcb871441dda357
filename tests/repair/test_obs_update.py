import copy

import pytest
import torch
from torch import Tensor, nn

import reference
import secateurs as sc
from repair.repair_cases import images, network, pruned_network
from secateurs import InvalidArgumentError
from secateurs.repair.obs_update import obs_update, pattern_of
from secateurs.selection.scopes import NOfM
from secateurs.training import hold


@pytest.mark.parametrize("block", [2, 3, 8, 128])
@pytest.mark.parametrize("neighbours", [None, NOfM(2, 4), NOfM(1, 2), NOfM(3, 8)])
def test_weights_are_those_of_the_oracle(block: int, neighbours: NOfM | None) -> None:
    torch.manual_seed(block)
    rows = torch.randn(20, 8, dtype=torch.float64)
    start = torch.randn(1, 3, 8, dtype=torch.float64)
    wanted = rows @ start[0].T + torch.randn(20, 3, dtype=torch.float64)
    mask = torch.rand(1, 3, 8) > 0.6
    hessian, cross = rows.T @ rows / 20, rows.T @ wanted / 20
    found, kept = obs_update(
        hessian[None], cross[None], start, mask, 0.01, neighbours=neighbours, block=block
    )
    extra = 0.01 * float(hessian.diagonal().mean())
    damped = (hessian + extra * torch.eye(8)).tolist()
    free = [
        reference.solved(damped, (cross[:, o] + extra * start[0, o]).tolist()) for o in range(3)
    ]
    pattern = None if neighbours is None else (neighbours.pruned, neighbours.of)
    expected = reference.surgeon(damped, free, int((~mask).sum()), block, pattern)
    assert torch.allclose(found[0], torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(found == 0, ~kept)
    assert (neighbours is not None) or int(kept.sum()) == int(mask.sum())


def test_one_weight_that_goes_leaves_the_best_of_the_others() -> None:
    """What Optimal Brain Surgeon is about: the minimum of the error where one weight is zero."""
    torch.manual_seed(0)
    rows = torch.randn(50, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    start = torch.randn(1, 1, 6, dtype=torch.float64)
    hessian = rows.T @ rows / 50
    mask = torch.tensor([[[False] + [True] * 5]])
    found, kept = obs_update(hessian[None], hessian @ start.mT, start, mask, 1e-9, block=1)
    # In blocks of one column the last column has the one that goes.
    gone = int((~kept)[0, 0].nonzero())
    others = [i for i in range(6) if i != gone]
    best = torch.linalg.lstsq(rows[:, others], rows @ start[0, 0][:, None]).solution[:, 0]
    if gone == 0:
        assert torch.allclose(found[0, 0, others], best, atol=1e-6)


def test_each_group_has_its_own_inputs() -> None:
    torch.manual_seed(0)
    rows = torch.randn(3, 20, 4, dtype=torch.float64)
    hessian = rows.mT @ rows / 20
    start = torch.randn(3, 2, 4, dtype=torch.float64)
    mask = torch.ones(3, 2, 4, dtype=torch.bool)
    mask[..., ::2] = False
    whole, _ = obs_update(hessian, hessian @ start.mT, start, mask, 0.01, neighbours=NOfM(1, 2))
    for i in range(3):
        part = slice(i, i + 1)
        alone, _ = obs_update(
            hessian[part], hessian[part] @ start[part].mT, start[part], mask[part], 0.01,
            neighbours=NOfM(1, 2),
        )  # fmt: skip
        assert torch.allclose(whole[part], alone)


def test_patterns_of_masks() -> None:
    mask = torch.tensor([1, 1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1], dtype=torch.bool).view(1, 1, 12)
    assert pattern_of(mask) == NOfM(2, 4)
    assert pattern_of(torch.cat([mask, torch.ones_like(mask)])) is None
    for none in (torch.ones(1, 2, 8, dtype=torch.bool), torch.zeros(1, 2, 8, dtype=torch.bool)):
        assert pattern_of(none) is None


def zeros(model: nn.Module) -> dict[str, int]:
    return {t.name: int((t.parameter == 0).sum()) for t in sc.find_targets(model)}


@pytest.mark.parametrize("steps", [["sparsegpt"], ["batchnorm", "sparsegpt", "reconstruct"]])
def test_other_weights_are_pruned_and_as_many(steps: list[str]) -> None:
    dense, model = network(), pruned_network(0.6)
    before = copy.deepcopy(model)
    (done,) = sc.repair(model, images(), steps)
    assert zeros(model) == zeros(before)
    changed = [
        name for name, p in model.named_parameters()
        if not torch.equal(p == 0, before.get_parameter(name) == 0)
    ]  # fmt: skip
    assert changed
    assert done.loss[1] < done.loss[0]
    assert all(after < now for now, after in done.layers.values())
    assert sc.sparsity(model) == sc.sparsity(before)
    name, dense_weight = changed[0], dense.get_parameter(changed[0])
    module = model.get_submodule(name.rpartition(".")[0])
    assert torch.equal(module.weight_orig, dense_weight)
    # What is repaired is no training: pruning again starts from the originals.
    assert sc.select(model, 0.3) == sc.select(dense, 0.3)
    again = copy.deepcopy(model)
    sc.repair(again, images(), ["reconstruct", "distill"], iterations=3)
    for name in changed:
        assert torch.equal(again.get_parameter(name) == 0, model.get_parameter(name) == 0)
    for restored in (sc.restore(model), sc.restore(again)):
        for name, value in dense.state_dict().items():
            assert torch.equal(restored.state_dict()[name], value), name


def test_neighbours_stay_neighbours() -> None:
    options = {"scope": "2:4", "exclude": ["0", "3"]}
    model = sc.global_prune(network(), **options)
    before = model[7].weight == 0
    sc.repair(model, images(), ["sparsegpt"])
    assert set((model[7].weight.view(-1, 4) != 0).sum(1).tolist()) == {2}
    assert not torch.equal(model[7].weight == 0, before)


def test_distillation_holds_the_masks_that_were_chosen() -> None:
    model = pruned_network(0.6)
    before = zeros(model)
    sc.repair(model, images(), ["sparsegpt", "distill"], iterations=3)
    assert zeros(model) == before


def test_kernels_and_filters_are_refused() -> None:
    model = sc.global_prune(network(), 0.3, granularity="filter")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    words = r"^'sparsegpt' chooses single weights, and 0\.weight is pruned by kernels or filters"
    with pytest.raises(InvalidArgumentError, match=words):
        sc.repair(model, images(), ["sparsegpt"])
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())


def test_masks_that_are_held_are_refused() -> None:
    model = pruned_network(0.6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    handle = hold(model, torch.optim.SGD(model.parameters(), 0.1))
    for step in ("sparsegpt", "distill"):
        with pytest.raises(InvalidArgumentError, match=f"^'{step}' .* 0.weight is held .*remove"):
            sc.repair(model, images(), ["batchnorm", step])
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    sc.repair(model, images(), ["reconstruct"])
    handle.remove()
    sc.repair(model, images(), ["sparsegpt"])


def test_what_fails_leaves_masks_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pruned_network(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calls = 0

    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls > 8:
            raise RuntimeError("stop")

    handle = model[7].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        sc.repair(model, images(), ["sparsegpt"], batch_size=8)
    handle.remove()
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert sc.select(model, 0.5) == sc.select(network(), 0.5)
