import math
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import reference
from helpers import (
    DTYPES,
    Case,
    assert_same,
    every_case,
    every_granularity,
    every_scope,
    flags,
    snapshot,
)
from secateurs import (
    Diversified,
    InvalidArgumentError,
    Target,
    apply_masks,
    find_targets,
    global_prune,
    restore,
    select,
)
from secateurs.checkpoint import prune_checkpoint
from secateurs.cli import main
from secateurs.criteria import CRITERIA, Criterion, register, score_names
from secateurs.evaluation import sweep


def with_gradients(case: Case) -> nn.Module:
    """The case's model with made-up gradients, all kinds of sizes and signs."""
    model = case.model()
    for parameter in model.parameters():
        grad = torch.randn(parameter.shape) * torch.randint(0, 3, parameter.shape)
        parameter.grad = grad.to(parameter.dtype)
    return model


@every_case
@every_granularity
@every_scope
@pytest.mark.parametrize("score", ["magnitude", "gradient", "taylor"])
def test_candidates_are_those_of_the_oracle(
    case: Case, granularity: str, scope: str, score: str
) -> None:
    model = with_gradients(case)
    weights = case.weights(model)

    def elements(name: str) -> list[float]:
        values = weights[name].values
        grads = model.get_parameter(name).grad.double().reshape(-1).tolist()
        if score == "magnitude":
            return values
        if score == "gradient":
            return grads
        products = [v * g for v, g in zip(values, grads, strict=True)]
        return products if weights[name].wide else [reference.to_float32(p) for p in products]

    for p_prune in (0, 0.25, 0.5, 0.9, 1):
        candidates = select(model, p_prune, granularity=granularity, scope=scope, score=score)
        found = {name: flags(mask) for name, mask in candidates.chosen.items()}
        assert found == reference.candidates(weights, p_prune, granularity, scope, elements)


def line(values: list[float], grads: list[float] | None = None, dtype: torch.dtype = torch.float32):
    model = nn.Linear(len(values), 1, bias=False)
    model.weight = nn.Parameter(torch.tensor([values]).to(dtype))
    if grads is not None:
        model.weight.grad = torch.tensor([grads]).to(dtype)
    return model


def pruned(model: nn.Module, p_prune: float, score: object, **options: object) -> list[bool]:
    chosen = select(model, p_prune, score=score, **options).chosen  # type: ignore[arg-type]
    return flags(chosen["weight"])


def test_what_the_scores_mean() -> None:
    model = line([-3.0, 1.0, 2.0], grads=[0.5, -2.0, -0.1])
    assert pruned(model, 1 / 3, "magnitude") == [False, True, False]
    assert pruned(model, 1 / 3, "gradient") == [False, False, True]
    assert pruned(model, 2 / 3, "gradient") == [True, False, True]
    assert pruned(model, 2 / 3, "taylor") == [True, False, True]


def test_lamp_ranks_each_weight_beside_the_larger_ones_of_its_layer() -> None:
    values = [0.5, -3.0, 1.0, 1.0, 0.25, -1.0]
    (target,) = find_targets(line(values))
    found = CRITERIA["lamp"].function(target)
    assert flags(found) == pytest.approx(reference.lamp(values))
    # Each layer keeps its largest, however small; of equal ones the earlier goes first.
    model = nn.Sequential(line([4.0, 5.0]), line([0.1, 0.1]))
    chosen = select(model, 0.5, score="lamp").chosen
    assert [flags(mask) for mask in chosen.values()] == [[True, False], [True, False]]
    (zeros,) = find_targets(line([0.0, 0.0]))
    assert flags(CRITERIA["lamp"].function(zeros)) == [0.0, 0.0]


def test_a_product_of_halves_is_not_rounded_into_ties() -> None:
    tiny = float(torch.finfo(torch.float16).smallest_normal)  # its square is zero in float16
    model = line([2 * tiny, tiny], grads=[2 * tiny, tiny], dtype=torch.float16)
    assert pruned(model, 0.5, "taylor") == [False, True]
    first, second = 1 + 2**-7, 1 + 2**-6  # first**2 is second in bfloat16
    model = line([first, second], grads=[first, 1.0], dtype=torch.bfloat16)
    assert pruned(model, 0.5, "taylor") == [False, True]


def test_original_weights_are_scored_while_the_model_is_pruned() -> None:
    model = line([3.0, 2.0, -1.0], grads=[1.0, 1.0, 1.0])
    for score in ("magnitude", "taylor", lambda target: target.weight.abs()):
        global_prune(model, 2 / 3)  # where two are zero, the earlier would be taken
        assert pruned(model, 1 / 3, score) == [False, False, True]
        restore(model)


def test_a_sparse_gradient_scores_like_a_dense_one() -> None:
    def embedding(sparse: bool) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Embedding(6, 3, sparse=sparse)
        model(torch.tensor([1, 4, 4])).square().sum().backward()
        return model

    for score in ("gradient", "taylor"):
        dense, sparse = (pruned(embedding(s), 0.8, score, layers="all") for s in (False, True))
        assert sparse == dense


@pytest.mark.parametrize("score", ["gradient", "taylor"])
def test_no_gradient_yet(score: str) -> None:
    words = r"^weight has no gradient to score by: run loss\.backward\(\) first"
    with pytest.raises(InvalidArgumentError, match=words):
        select(nn.Linear(2, 2), 0.5, score=score)


def test_random_scores_choose_any_subset() -> None:
    model = line([0.0] * 6, dtype=torch.float16)
    found = {tuple(pruned(model, 1 / 3, "random", seed=s)) for s in range(150)}
    assert len(found) == math.comb(6, 2)
    assert all(sum(f) == 2 for f in found)


def test_random_scores_follow_the_seed_and_advance_the_generator() -> None:
    model = nn.Linear(30, 30)
    first, second, third = (pruned(model, 0.5, "random", seed=s) for s in (0, 0, 1))
    assert first == second != third
    generator = torch.Generator().manual_seed(0)
    assert pruned(model, 0.5, "random", generator=generator) == first
    assert pruned(model, 0.5, "random", generator=generator) != first


def test_random_scores_ignore_the_global_seed_and_do_not_touch_it() -> None:
    model = nn.Linear(30, 30)
    state = torch.get_rng_state()
    first = pruned(model, 0.5, "random", seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert pruned(model, 0.5, "random", seed=0) == first


def test_a_callable_gets_the_target_and_may_score_elements_or_units() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 3))
    seen: list[str] = []

    def elements(target: Target) -> Tensor:
        seen.append(target.name)
        assert target.parameter is target.module.weight
        return target.weight.abs().requires_grad_()

    def kernels(target: Target) -> Tensor:
        return target.weight.abs().sum((2, 3), keepdim=True)

    usual = select(model, 0.5, granularity="kernel").chosen
    for score in (elements, kernels):
        chosen = select(model, 0.5, granularity="kernel", score=score).chosen
        assert all(torch.equal(chosen[name], usual[name]) for name in usual)
    assert seen == ["0.weight", "1.weight"]


def test_a_callable_may_score_below_zero_and_in_whole_numbers() -> None:
    model = line([1.0, 2.0, 3.0, 4.0])
    assert pruned(model, 0.5, lambda t: -t.weight) == [False, False, True, True]
    assert pruned(model, 0.5, lambda t: torch.tensor([[5, -(2**60), 5, 5]])) == [
        True, True, False, False,
    ]  # fmt: skip
    large = torch.tensor([[2**24 + 1, 2**24, 2**24 + 1, 2**24]])  # equal in float32
    assert pruned(model, 0.5, lambda t: large) == [False, True, False, True]
    assert pruned(model, 0.5, lambda t: t.weight > 1) == [True, True, False, False]
    sums = select(
        nn.Linear(2, 2), 0.5, granularity="filter", score=lambda t: torch.tensor([[1, 1], [-9, 5]])
    )
    assert flags(sums.chosen["weight"]) == [False, True]


def test_a_callable_may_return_any_layout() -> None:
    model = nn.Linear(3, 4)
    row = torch.tensor([3.0, 1.0, 2.0])
    chosen = pruned(model, 0.5, lambda t: row.expand(4, 3))
    assert chosen == pruned(model, 0.5, lambda t: row.repeat(4, 1))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("magnitud", r"score must be one of magnitude, .*; got 'magnitud'; did you mean magnitude"),
        (None, r"score must be one of .*; got None"),
        (lambda t: [1.0], "the score of weight must be a tensor, not list"),
        (lambda t: torch.ones(3), r"score of weight has shape \(3,\); .* weight, \(2, 3\), or"),
        (lambda t: torch.ones(2, 3, dtype=torch.complex64), "the score of weight is complex"),
        (lambda t: t.weight * math.nan, "the score of weight is NaN in places"),
        (lambda t: torch.ones(2, 3, device="meta"), "is on the meta device and has no values"),
        (lambda t: t.weight.abs_(), r"wrote into weight, as abs_\(\) does: write such as abs\(\)"),
        (lambda t: t.weight.neg_().abs(), "wrote into weight"),
    ],
)
def test_wrong_scores(score: object, words: str) -> None:
    with pytest.raises(InvalidArgumentError, match=words):
        select(nn.Linear(3, 2), 0.5, score=score)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_score_that_writes_into_the_weights_is_refused_and_they_stay(is_pruned: bool) -> None:
    model = nn.Linear(3, 2)
    dense = snapshot(model)
    before = snapshot(global_prune(model, 0.5)) if is_pruned else dense
    with pytest.raises(InvalidArgumentError, match="wrote into weight"):
        select(model, 0.5, score=lambda t: t.weight.abs_())
    assert_same(snapshot(model), before)
    assert_same(snapshot(restore(model)), dense)


def test_a_score_may_change_the_weights_and_change_them_back() -> None:
    """As one does that measures what the model loses without each weight."""
    model = nn.Linear(3, 2)

    @torch.no_grad()
    def ablation(target: Target) -> Tensor:
        weight, scores = target.parameter, torch.zeros(2, 3)
        for place in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
            value = weight[tuple(place)].clone()
            weight[tuple(place)] = 0
            scores[tuple(place)] = -weight.abs().sum()
            weight[tuple(place)] = value
        return scores

    assert select(model, 0.5, score=ablation) == select(model, 0.5)


def test_a_sparse_score_is_one_of_zeros_elsewhere() -> None:
    model = nn.Linear(3, 2)
    score = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    candidates = select(model, 0.5, score=lambda t: score.to_sparse())
    assert candidates == select(model, 0.5, score=lambda t: score)


@pytest.mark.parametrize("dtype", DTYPES)
@every_granularity
def test_nan_weights_are_refused_by_name(dtype: torch.dtype, granularity: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[1, 0] = math.nan
    model.to(dtype)
    with pytest.raises(
        InvalidArgumentError, match=r"score of 1\.weight is NaN.*exclude='1\.weight'"
    ):
        select(model, 0.5, granularity=granularity)
    select(model, 0.5, granularity=granularity, exclude="1.weight")


@pytest.mark.parametrize("criterion", CRITERIA.values(), ids=list(CRITERIA))
def test_those_that_read_data_say_so(criterion: Criterion) -> None:
    """A sweep that goes on is known by what the gradients gave, so it must know who reads them."""
    if criterion.function is None:
        return
    try:
        criterion.function(find_targets(nn.Linear(2, 2))[0])  # the layer never ran
    except InvalidArgumentError:
        assert criterion.needs_data
    else:
        assert not criterion.needs_data


def inverse(target: Target) -> Tensor:
    """The largest weights go first."""
    return 1 / target.weight.abs()


@pytest.fixture
def registered() -> str:
    """The name of a criterion from outside."""
    register()(inverse)
    return "inverse"


def largest_are_pruned(weight: Tensor) -> bool:
    return weight.count_nonzero() == 6 and bool((weight[weight != 0] < 7).all())


def ascending() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 4, bias=False))
    model[1].weight.data = torch.arange(1.0, 13.0).view(4, 3)
    return model


def test_a_criterion_from_outside_prunes_models(registered: str) -> None:
    model = ascending()
    assert (
        flags(select(model, 0.5, score=registered).chosen["1.weight"]) == [False] * 6 + [True] * 6
    )
    assert largest_are_pruned(global_prune(model, 0.5, score=registered)[1].weight)
    restore(model)
    surrogate = Diversified(model, 0.5, 1.0, score=registered)
    assert largest_are_pruned(surrogate(torch.eye(3)).T)


def test_a_criterion_from_outside_is_swept(registered: str, tmp_path: Path) -> None:
    data = [(torch.randn(3), i % 4) for i in range(8)]
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    options = {"p_prune": 0.5, "output": tmp_path, "progress": False}
    (row,) = sweep(ascending(), loader, score=registered, **options)
    assert (row.score, row.achieved) == ("inverse", 0.5)
    (again,) = sweep(ascending(), loader, score=registered, **options)
    assert again == row
    # Its name does not say what it computes, so another function of that name is another sweep.
    CRITERIA[registered] = Criterion(name=registered, function=lambda target: target.weight)
    with pytest.raises(InvalidArgumentError, match="candidates"):
        sweep(ascending(), loader, score=registered, **options)


@pytest.mark.parametrize("granularity", ["weight", "filter"])
def test_a_criterion_from_outside_prunes_files(
    registered: str, granularity: str, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Conv2d(4, 3, 3, bias=False))
    save_file(model.state_dict(), tmp_path / "in.safetensors")
    options = {"score": registered, "granularity": granularity, "seed": 0}
    prune_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.4, 0.5, **options)
    pruned_file = load_file(tmp_path / "out.safetensors")
    masks = select(model, 0.4, **options).draw(0.5, seed=0)
    apply_masks(model, masks)
    assert all(torch.equal(pruned_file[name], values) for name, values in model.named_parameters())


def test_the_command_line_knows_a_criterion_from_outside(
    registered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"1.weight": ascending()[1].weight.data}, tmp_path / "in.safetensors")
    words = ["prune", f"{tmp_path}/in.safetensors", "-o", f"{tmp_path}/out.safetensors"]
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*words, "--p-prune", "0.5", "--score", registered])
    assert largest_are_pruned(load_file(tmp_path / "out.safetensors")["1.weight"])
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*words, "--p-prune", "0.5", "--score", "invers"])
    said = capsys.readouterr().err
    assert "one of magnitude, lamp, random, inverse; got 'invers'; did you mean inverse?" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scor": "random"}, r"^prune_checkpoint has no argument scor; .*; did you mean score"),
        (
            {"score": "magnitud"},
            "score must be one of magnitude, lamp, random; got 'magnitud'; did",
        ),
        ({"score": "taylor"}, "one of magnitude, lamp, random; got 'taylor', which needs data"),
        ({"score": "wanda"}, "score must be one of .*; got 'wanda', which needs data$"),
    ],
)
def test_files_hold_no_data_to_score_by(
    options: dict[str, str], words: str, tmp_path: Path
) -> None:
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "in.safetensors")
    with pytest.raises(InvalidArgumentError, match=words):
        prune_checkpoint(tmp_path / "in.safetensors", tmp_path / "out.safetensors", 0.5, **options)


def test_a_name_belongs_to_one_function(registered: str) -> None:
    register()(inverse)  # as a notebook does that runs a cell again
    with pytest.raises(InvalidArgumentError, match="there is a criterion 'magnitude' already"):
        register(name="magnitude")(inverse)
    built_in = ["magnitude", "gradient", "taylor", "lamp", "wanda", "obs", "random"]
    assert score_names() == [*built_in, registered]
    assert score_names(data_free=True) == ["magnitude", "lamp", "random", registered]


def test_what_has_no_name_of_its_own_is_registered_under_a_given_one() -> None:
    with pytest.raises(InvalidArgumentError, match="a partial has no name of its own: give name"):
        register()(partial(inverse))
    try:
        for _ in range(2):
            register(name="negative")(partial(inverse))
        with pytest.raises(InvalidArgumentError, match="there is a criterion 'negative' already"):
            register(name="negative")(partial(abs))
    finally:
        CRITERIA.pop("negative")


def test_the_pages_name_every_criterion() -> None:
    page = Path(__file__).parents[1] / "docs" / "sweep.md"
    (row,) = (row for row in page.read_text().splitlines() if row.startswith("| `--score`"))
    assert re.findall("`([a-z]+)`", row.split("|")[2]) == score_names()
