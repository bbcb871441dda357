"""What a benchmark measures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_benchmark import benchmark, outcome

from digit_nets import networks
from secateurs.attacks import attack, noise, parse_method
from secateurs.errors import InvalidArgumentError
from secateurs.results import TransferRow, digest_of, read_rows
from secateurs.transfer import AttackGroup, AttackVariants, Search, batch
from secateurs.transfer.attack_variants import NOISE, PLAIN, AttackVariant
from secateurs.transfer.batch import attack_batch, make_members, rounded
from secateurs.transfer.image_choice import predict
from secateurs.transfer.plan import Job
from secateurs.transfer.search import best_variants, mean_success

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def rows() -> list[TransferRow]:
    return benchmark(recipe=("dwp", "rapa", "mup"), seeds=(0, 1)).run()


def test_every_variant_meets_the_same_images_and_seeds(rows: list[TransferRow]) -> None:
    assert {row.variant for row in rows} == {
        "noise", "plain", "dwp 0.3 0.5", "rapa 0.05", "mup 0.15",
    }  # fmt: skip
    (images,) = {row.images for row in rows}
    assert images == digest_of(benchmark().images.names)
    attacked = [row for row in rows if row.recipe != "noise"]
    # Per variant and seed: three groups, each with one target and two surrogates, at three steps.
    assert len(attacked) == 4 * 2 * 3 * 3 * 3
    assert {row.step for row in attacked} == {2, 4, 5}
    assert {row.count for row in rows} == {13}
    assert all(len(row.untargeted_hits) == len(row.targeted_hits) == 13 for row in rows)
    assert len({row.key for row in rows}) == len(rows)


def test_roles(rows: list[TransferRow]) -> None:
    for row in rows:
        assert (row.role == "whitebox") == (row.target in row.surrogates.split(";"))
    held = {(row.surrogates, row.target) for row in rows if row.role == "holdout"}
    assert held == {
        ("convolved;normed", "hidden"),
        ("hidden;normed", "convolved"),
        ("hidden;convolved", "normed"),
        ("", "hidden"),
        ("", "convolved"),
        ("", "normed"),
    }


def test_noise_needs_no_network(rows: list[TransferRow]) -> None:
    found = [row for row in rows if row.variant == "noise"]
    assert len(found) == 3 * 2
    assert {(row.surrogates, row.role, row.step) for row in found} == {("", "holdout", 5)}


def test_rows_say_what_pruned(rows: list[TransferRow]) -> None:
    columns = "recipe", "prune_type", "redraw", "granularity", "scope", "p_prune", "p_bern"
    said = {row.variant: tuple(getattr(row, name) for name in columns) for row in rows}
    assert said == {
        "noise": ("noise", "", "", "", "", 0.0, 0.0),
        "plain": ("", "", "", "", "", 0.0, 0.0),
        "dwp 0.3 0.5": ("dwp", "global", "forward", "weight", "global", 0.3, 0.5),
        "rapa 0.05": ("rapa", "global", "forward", "weight", "global", 1.0, 0.05),
        "mup 0.15": ("mup", "global", "forward", "weight", "layer", 0.15, 1.0),
    }
    for row in rows:
        expected = row.p_prune * row.p_bern
        assert row.achieved == pytest.approx(expected, abs=0.03)
        assert (row.achieved > 0) == (row.recipe not in ("", "noise"))


def test_attacks_beat_noise_and_the_white_box_falls(rows: list[TransferRow]) -> None:
    def mean(variant: str, role: str) -> float:
        found = [r for r in rows if (r.variant, r.role, r.step) == (variant, role, 5)]
        return sum(row.targeted or 0.0 for row in found) / len(found)

    assert mean("plain", "whitebox") > mean("plain", "holdout") > mean("noise", "holdout")


def test_a_row_is_what_the_attack_gives_by_hand(rows: list[TransferRow]) -> None:
    """Plain, first group and seed: attack and score without the benchmark."""
    bench = benchmark()
    group, images = bench.groups[0], bench.images
    job = Job(group, AttackVariant(recipe=PLAIN), 1)
    hits = ""
    for start in range(0, 13, 4):
        stop = min(start + 4, 13)
        seen, levels = attack_batch(
            job, make_members(job), images, start, bench.protocol, device=CPU
        )
        assert seen.seen == stop - start
        answers = predict(group.targets[0], levels.float() / 255)
        hits += "".join(str(int(a)) for a in answers == images.targets[start:stop])
    (row,) = [
        row
        for row in rows
        if (row.surrogates, row.target, row.variant, row.seed, row.step)
        == ("convolved;normed", "hidden", "plain", 1, 5)
    ]
    assert row.targeted_hits == hits
    assert row.targeted == pytest.approx(100 * hits.count("1") / 13)


def test_a_batch_is_attacked_by_the_mean_of_all_surrogates() -> None:
    bench = benchmark()
    bench = replace(bench, protocol=replace(bench.protocol, batch_size=13))
    job = Job(bench.groups[0], AttackVariant(recipe=PLAIN), 0)
    _, levels = attack_batch(job, make_members(job), bench.images, 0, bench.protocol, device=CPU)
    by_hand = attack(
        [network.dense for network in bench.groups[0].surrogates],
        bench.images.levels.float() / 255,
        bench.images.targets,
        method="mi-di-logit",
        eps=64 / 255,
        alpha=16 / 255,
        steps=5,
        seed=0,
    )
    assert torch.equal(levels, (by_hand * 255).round().byte())


def test_a_batch_has_one_outcome_whatever_ran_before_it() -> None:
    bench = benchmark()
    (dwp,) = bench.variants
    job = Job(bench.groups[0], dwp, 3)
    members = make_members(job)

    def levels(start: int) -> torch.Tensor:
        return attack_batch(job, members, bench.images, start, bench.protocol, device=CPU)[1]

    first, second = levels(0), levels(4)
    assert torch.equal(levels(4), second)
    assert torch.equal(levels(0), first)
    fresh = attack_batch(job, make_members(job), bench.images, 4, bench.protocol, device=CPU)[1]
    assert torch.equal(fresh, second)


def test_diversification_and_seeds_change_the_outcome() -> None:
    bench = benchmark()
    (dwp,) = bench.variants

    def levels(variant: AttackVariant, seed: int) -> bytes:
        job = Job(bench.groups[0], variant, seed)
        members = make_members(job)
        batch = attack_batch(job, members, bench.images, 0, bench.protocol, device=CPU)
        return batch[1].numpy().tobytes()

    plain = AttackVariant(recipe=PLAIN)
    assert len({levels(plain, 0), levels(plain, 1), levels(dwp, 0), levels(dwp, 1)}) == 4


def test_noise_is_the_noise_of_the_attacks() -> None:
    bench = benchmark()
    bench = replace(bench, protocol=replace(bench.protocol, batch_size=13))
    job = Job(bench.groups[0], AttackVariant(recipe=NOISE), 0)
    _, levels = attack_batch(job, [], bench.images, 0, bench.protocol, device=CPU)
    by_hand = noise(bench.images.levels.float() / 255, 64 / 255, seed=0)
    assert torch.equal(levels, (by_hand * 255).round().byte())


def test_the_networks_are_as_they_were() -> None:
    bench = benchmark(recipe=("dwp", "mup"), limit=4)
    nets = {network for group in bench.groups for network in group.scored}
    before = {net: net.sha256 for net in nets}
    bench.run()
    for net in nets:
        del net.__dict__["sha256"]
        assert net.sha256 == before[net]
        assert not any(p.requires_grad or p.grad is not None for p in net.inner.parameters())


def test_untargeted() -> None:
    found = benchmark(limit=8, targeted=False).run()
    assert {row.targeted for row in found} == {None}
    assert {(row.targeted_attack, row.target_classes) for row in found} == {(False, "")}
    white = [r for r in found if (r.variant, r.role, r.step) == ("plain", "whitebox", 5)]
    noise_rows = [row for row in found if row.variant == "noise"]
    assert min(row.untargeted for row in white) > max(row.untargeted for row in noise_rows)


@pytest.mark.parametrize("eps", [16 / 255, 0.06, 0.0646, 1 / 255])
def test_rounding_stays_within_epsilon(eps: float) -> None:
    levels = torch.randint(0, 256, (4, 1, 8, 8)).byte()
    moved = levels.float() / 255 + torch.empty(4, 1, 8, 8).uniform_(-eps, eps)
    found = rounded(moved.clamp(0, 1), levels, eps)
    assert found.dtype == torch.uint8
    assert (found.int() - levels.int()).abs().max() <= eps * 255 + 1e-9
    edge = rounded((levels.float() / 255 + eps).clamp(0, 1), levels, eps).int()
    room = (eps + 1e-9) * 255 // 1
    assert torch.equal(edge, (levels.int() + int(room)).clamp(max=255))


def test_search_chooses_on_images_that_are_not_reported() -> None:
    variants = AttackVariants(recipe=["dwp", "rapa"], p_prune=[0.1, 0.9], p_bern=[0.9]).all
    bench = benchmark(variants=variants, limit=16, search=Search(images=6, steps=3), seeds=(4, 5))
    found = bench.run()
    searched = [row for row in found if row.search_part == "search"]
    reported = [row for row in found if row.search_part == "report"]
    assert len(searched) + len(reported) == len(found)
    names = bench.images.names
    assert {row.images for row in searched} == {digest_of(names[:6])}
    assert {row.images for row in reported} == {digest_of(names[6:])}
    assert {(row.steps, row.seed) for row in searched} == {(3, 4)}
    assert {(row.steps, row.seed) for row in reported} == {(5, 4), (5, 5)}
    assert {r.variant for r in searched} == {"plain", "dwp 0.1 0.9", "dwp 0.9 0.9", "rapa 0.05"}
    best = max(variants[:2], key=lambda variant: mean_success(variant, searched))
    assert {row.variant for row in reported} == {"noise", "plain", str(best), "rapa 0.05"}


def test_the_best_is_chosen_by_success_on_networks_held_out(rows: list[TransferRow]) -> None:
    first, second = AttackVariants(p_prune=[0.1, 0.2]).all
    (row,) = [
        row
        for row in rows
        if (row.target, row.variant, row.seed, row.step) == ("hidden", "plain", 0, 5)
        and row.role == "holdout"
    ]
    same = replace(row, recipe="dwp")
    made = [
        replace(same, variant=str(first), targeted=30.0),
        replace(same, variant=str(first), targeted=10.0),
        replace(same, variant=str(second), targeted=25.0),
        replace(same, variant=str(first), targeted=100.0, role="whitebox"),
        replace(same, variant=str(first), targeted=100.0, step=4),
    ]
    assert best_variants([first, second], made) == [(second, 25.0)]
    made[2] = replace(made[2], targeted=20.0)
    assert best_variants([first, second], made) == [(first, 20.0)]  # the first of equals


@pytest.mark.parametrize("seeds", [(-1,), (True,), (), (1, 1), (2**31,)])
def test_seeds_that_cannot_be(seeds: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match="seed"):
        benchmark(seeds=seeds)


def test_a_recipe_that_does_not_fit_one_of_an_ensemble_is_known_at_once() -> None:
    bench = benchmark()
    (bare,) = networks("bare")
    group = AttackGroup([bench.groups[0].surrogates[0], bare], bench.groups[0].targets)
    with pytest.raises(InvalidArgumentError, match="rapa does not fit bare: "):
        replace(bench, groups=[group], variants=AttackVariants(recipe=["rapa"]).all)


def test_results_on_disk_are_the_rows(tmp_path: Path) -> None:
    bench = benchmark(limit=5)
    found = bench.run(output=tmp_path)
    assert (
        read_rows(tmp_path, TransferRow)
        == read_rows(tmp_path / "results.csv", TransferRow)
        == found
    )
    assert outcome(found) == outcome(bench.run())


@pytest.mark.parametrize(("method", "plain_passes"), [("mi-si2-logit", 1), ("admix1-logit", 3)])
def test_passes_that_would_be_the_same_are_taken_once(
    method: str, plain_passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counting(*words: Any, passes: int, **options: Any) -> Any:
        taken.append(passes)
        return attack(*words, passes=passes, **options)

    monkeypatch.setattr(batch, "attack", counting)
    benchmark("hidden", "normed", limit=3, method=parse_method(method), passes=3).run()
    # Each of two groups: plain, then diversified.
    assert taken == [plain_passes, 3] * 2
