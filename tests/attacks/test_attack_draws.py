"""What random numbers hang on: seed, step, pass and member, and nothing else."""

import numpy as np
import pytest
import torch
from torch import Tensor

from attack_nets import Noting, batch, network
from secateurs.attacks import Method, attack
from secateurs.attacks._noise import noise
from secateurs.surrogates import Diversified, mup

OPTIONS = {"eps": "16/255", "alpha": "3/255", "steps": 4}
ALL = "ni-ti-rdi-si3-admix2-margin"


def test_the_seed_decides_and_nothing_global_does() -> None:
    images, classes = batch()
    outcomes = []
    for seed in (0, 0, 1, -1, 2**70):
        torch.manual_seed(len(outcomes))
        state = torch.get_rng_state()
        outcomes.append(
            attack([network()], images, classes, method="mi-di-logit", seed=seed, **OPTIONS)
        )
        assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(outcomes[0], outcomes[1])
    assert len({tuple(found.flatten().tolist()) for found in outcomes}) == 4


def shown(count: int, **options: object) -> list[Tensor]:
    """What the first of ``count`` members sees in the first step."""
    members = [Noting(network(seed)) for seed in range(count)]
    images, classes = batch(2, side=48)
    options = {**OPTIONS, "steps": 1, "method": "rdi-logit", **options}
    attack(members, images, classes, **options)  # type: ignore[arg-type]
    return members[0].seen


def test_members_and_passes_do_not_shift_each_others_draws() -> None:
    alone = shown(1, passes=2)
    together = shown(3, passes=4)
    assert all(torch.equal(a, b) for a, b in zip(alone, together[:2], strict=True))
    assert len({tuple(x.flatten().tolist()) for x in together}) == 4


def test_every_member_sees_a_draw_of_its_own() -> None:
    members = [Noting(network(0)), Noting(network(0))]
    images, classes = batch(2, side=48)
    attack(members, images, classes, method="rdi-ce", **OPTIONS)
    pairs = zip(members[0].seen, members[1].seen, strict=True)
    assert not any(torch.equal(first, second) for first, second in pairs)
    assert not torch.equal(members[0].seen[0], members[0].seen[1])


@pytest.mark.parametrize("loss", ["logit", "ce"])
def test_forward_passes_are_counted(loss: str) -> None:
    member = Noting(network())
    images, classes = batch()
    attack([member], images, classes, method=f"di-si3-admix2-{loss}", passes=2, **OPTIONS)
    assert len(member.seen) == 4 * 2 * 3 * 2


def test_passes_are_averaged() -> None:
    images, classes = batch()
    one = attack([network()], images, classes, method="rdi-mi-ce", **OPTIONS)
    two = attack([network()], images, classes, method="rdi-mi-ce", passes=3, **OPTIONS)
    assert not torch.equal(one, two)
    plain = [
        attack([network()], images, classes, method="mi-ce", passes=s, **OPTIONS) for s in (1, 3)
    ]
    assert torch.allclose(*plain, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 9])
@pytest.mark.parametrize("method", [ALL, "mi-ti-di-logit"])
def test_parts_of_a_batch_come_out_as_the_whole(chunk: int, method: str) -> None:
    images, classes = batch()
    members = [network(0), network(1)]
    whole = attack(members, images, classes, method=method, passes=2, **OPTIONS)
    parts = attack(members, images, classes, method=method, passes=2, chunk=chunk, **OPTIONS)
    assert torch.allclose(parts, whole, atol=1e-12)


@pytest.mark.parametrize("redraw", ["forward", "step", 3])
def test_parts_of_a_batch_meet_the_same_masks(redraw: str | int) -> None:
    images, classes = batch()

    def found(chunk: int | None) -> Tensor:
        member = Diversified(network(), 0.7, 0.5, redraw=redraw, seed=0)
        return attack(
            [member], images, classes, method="di-logit", passes=2, chunk=chunk, **OPTIONS
        )

    whole = found(None)
    assert torch.allclose(found(2), whole, atol=1e-12)
    dense = attack([network()], images, classes, method="di-logit", passes=2, **OPTIONS)
    assert not torch.allclose(whole, dense, atol=1e-3)


def test_each_pass_has_a_fresh_mask_and_each_step_calls_step() -> None:
    images, classes = batch()
    fresh = Diversified(network(), 0.7, 0.5, seed=0)
    attack([fresh], images, classes, method="ce", passes=3, chunk=2, **OPTIONS)
    assert fresh.draws == 4 * 3
    stepped = Diversified(network(), 0.7, 0.5, redraw="step", seed=0)
    attack([stepped], images, classes, method="ce", passes=3, chunk=2, **OPTIONS)
    assert stepped.draws == 4


def test_recipes_that_need_the_classes_get_those_of_their_chunk() -> None:
    images, classes = batch()
    for chunk in (None, 2):
        member = mup(network(), p_prune=0.3, seed=0)
        found = attack([member], images, classes, method="mi-logit", chunk=chunk, **OPTIONS)
        assert (found - images).abs().max() > 0.01


@pytest.mark.parametrize("method", ["mi-ti-di-logit", "ni-rdi-si-ce"])
def test_an_image_comes_out_the_same_in_any_batch(method: str) -> None:
    images, classes = batch()
    together = attack([network()], images, classes, method=method, **OPTIONS)
    for rows in (slice(0, 1), slice(2, 5)):
        alone = attack([network()], images[rows], classes[rows], method=method, **OPTIONS)
        assert torch.allclose(alone, together[rows], atol=1e-12)


def test_integers_of_any_kind() -> None:
    images, classes = batch()
    plain = {"steps": 2, "passes": 2, "every": 1, "chunk": 2, "seed": 5}
    found = []
    for kind in (int, np.int64, torch.tensor):
        method = Method(loss="logit", di="di", ti=kind(5), si=kind(2), admix=kind(1))
        assert str(method) == "ti-di-si2-admix1-logit"
        options = {**OPTIONS, **{name: kind(value) for name, value in plain.items()}}
        found.append(attack([network()], images, classes, method=method, **options))
        assert torch.equal(noise(images, 0.1, kind(5)), noise(images, 0.1, 5))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
