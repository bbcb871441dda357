import math

import pytest
import torch
from torch import Tensor, nn

from attack_nets import CLASSES, Noting, batch, digits, network
from secateurs.attacks import LOSSES, Method, attack, noise, parse_method
from secateurs.attacks.smoothing import gaussian_kernel

OPTIONS = {"eps": "16/255", "alpha": "3/255", "steps": 6}


def obvious(
    members: list[nn.Module], image: Tensor, target: int, method: Method, targeted: bool
) -> Tensor:
    """One image, one pixel's neighbourhood at a time; no random components."""
    eps, alpha, sign = 16 / 255, 3 / 255, 1 if targeted else -1
    x, g = image.clone(), torch.zeros_like(image)
    for _ in range(OPTIONS["steps"]):  # type: ignore[arg-type]
        gradient = torch.zeros_like(image)
        for copy in range(method.si):
            at = (x + alpha * method.momentum * g if method.nesterov else x).clone()
            at.requires_grad_()
            z = sum(member(at[None] / 2**copy)[0] for member in members) / len(members)
            loss = LOSSES[method.loss](z[None], torch.tensor([target]))[0]  # type: ignore[index]
            gradient += torch.autograd.grad(sign * loss, at)[0] / method.si
        if method.ti:
            half, kernel = method.ti // 2, gaussian_kernel(method.ti)
            wide = nn.functional.pad(gradient, (half, half, half, half))
            for row in range(image.shape[1]):
                for column in range(image.shape[2]):
                    window = wide[:, row : row + method.ti, column : column + method.ti]
                    gradient[:, row, column] = (window * kernel).sum((1, 2))
        g = method.momentum * g + gradient / gradient.abs().mean()
        x = x + alpha * g.sign()
        x = torch.maximum(torch.minimum(x, image + eps), image - eps).clamp(0, 1)
    return x.detach()


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize(
    "name",
    ["logit", "ce", "margin", "mi-ce", "ni-margin", "mi-ti-logit", "mi0.7-ni-ti3-si3-logit"],
)
def test_the_loop_is_the_obvious_one(name: str, targeted: bool) -> None:
    members: list[nn.Module] = [network(0), network(1)]
    images, classes = batch(3)
    method = parse_method(name)
    found = attack(members, images, classes, method=method, targeted=targeted, **OPTIONS)
    for image, target, adversarial in zip(images, classes.tolist(), found, strict=True):
        expected = obvious(members, image, target, method, targeted)
        assert torch.allclose(adversarial, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "least"),
    [("mi-logit", 0.8), ("mi-ce", 0.95), ("mi-margin", 0.95), ("mi-ti3-di-logit", 0.7)],
)
def test_a_trained_network_predicts_the_target_classes(name: str, least: float) -> None:
    model, images, labels = digits(28)
    targets = (labels + 1 + torch.arange(len(labels)) % 9) % 10
    options = {"eps": 0.3, "alpha": 0.03, "steps": 30, "method": name}
    found = attack([model], images, targets, **options)
    assert (model(found).argmax(1) == targets).double().mean() >= least
    away = attack([model], images, labels, targeted=False, **options)
    assert (model(away).argmax(1) != labels).double().mean() >= 0.95


def test_noise_does_not_fool_a_trained_network() -> None:
    model, images, labels = digits()
    targets = (labels + 1 + torch.arange(len(labels)) % 9) % 10
    seen = model(noise(images, 0.3)).argmax(1)
    assert (seen == targets).double().mean() < 0.1
    assert (seen != labels).double().mean() < 0.5


@pytest.mark.parametrize("name", ["mi-ti-di-logit", "ni-rdi-si-admix-margin", "ce"])
def test_pixels_stay_within_eps_and_range(name: str) -> None:
    images, classes = batch(dtype=torch.float32)
    model = network(dtype=torch.float32)
    found = attack([model], images, classes, method=name, eps="8/255", alpha="3/255", steps=5)
    assert found.dtype == images.dtype
    assert found.min() >= 0 and found.max() <= 1
    assert (found - images).abs().max() <= 8 / 255 + 1e-7
    assert (found - images).abs().max() >= 7.99 / 255


def test_noise_is_eps_everywhere_and_in_range() -> None:
    images, _ = batch(count=40)
    found = noise(images, "8/255", 3)
    assert torch.equal(found, noise(images, "8/255", 3))
    assert not torch.equal(found, noise(images, "8/255", 4))
    changed = (found - images)[(images > 8 / 255) & (images < 1 - 8 / 255)]
    assert torch.allclose(changed.abs(), torch.tensor(8 / 255, dtype=torch.float64))
    assert (changed > 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(noise(images[:2], "8/255", 3), found[:2])
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(noise(images, "8/255", 3), found)
    finally:
        torch.set_default_dtype(default)


def test_the_images_and_the_weights_stay_as_they_are() -> None:
    images, classes = batch()
    frozen, training = network(0).requires_grad_(False), network(1)
    states = [{k: v.clone() for k, v in m.state_dict().items()} for m in (frozen, training)]
    before = images.clone()
    attack([frozen, training], images, classes, method="mi-ce", **OPTIONS)
    assert torch.equal(images, before)
    assert not images.requires_grad
    for model, state in zip((frozen, training), states, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(p.requires_grad == (model is training) for p in model.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_flow_whatever_the_caller_has_switched_off(mode: type) -> None:
    images, classes = batch()
    model = network()
    expected = attack([model], images, classes, method="mi-di-logit", **OPTIONS)
    with mode():
        copied = images.clone()
        found = attack([model], copied, classes, method="mi-di-logit", **OPTIONS)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert not found.is_inference()


def test_the_format_of_memory_is_kept() -> None:
    images, classes = batch(dtype=torch.float32)
    seen = Noting(network(dtype=torch.float32))
    last = images.to(memory_format=torch.channels_last)
    for chunk in (None, 2):
        found = attack(
            [seen], last, classes, method="ni-ti-di-si-admix-logit", chunk=chunk, **OPTIONS
        )
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen.seen)


def test_members_in_another_dtype_are_given_what_they_need() -> None:
    images, classes = batch(dtype=torch.float32)
    members = [network(0, dtype=torch.float64), network(1, dtype=torch.float32)]
    found = attack(members, images, classes, method="mi-margin", **OPTIONS)
    same = [network(0, dtype=torch.float32), members[1]]
    assert found.dtype == torch.float32
    assert torch.allclose(found, attack(same, images, classes, method="mi-margin", **OPTIONS))


def test_checkpoints_come_every_so_often_and_at_the_end() -> None:
    images, classes = batch()
    kept: dict[int, Tensor] = {}

    def keep(step: int, adversarial: Tensor) -> None:
        assert not torch.is_grad_enabled()
        kept[step] = adversarial.clone()
        adversarial.zero_()  # what is handed out is the receiver's

    options = {"method": "mi-di-logit", "eps": "16/255", "alpha": "2/255", "seed": 3}
    found = attack([network()], images, classes, steps=7, every=3, on_checkpoint=keep, **options)
    assert list(kept) == [3, 6, 7]
    assert torch.equal(kept[7], found)
    for steps in (3, 6):
        assert torch.equal(
            kept[steps], attack([network()], images, classes, steps=steps, **options)
        )


def test_the_last_checkpoint_comes_once() -> None:
    images, classes = batch(1)
    steps: list[int] = []
    attack(
        [network()],
        images,
        classes,
        method="ce",
        every=3,
        on_checkpoint=lambda step, _: steps.append(step),
        **OPTIONS,
    )
    assert steps == [3, 6]


def test_aim_is_called_once_and_step_before_every_step() -> None:
    images, classes = batch(2)
    member = Noting(network())
    options = {**OPTIONS, "steps": 2}
    attack([member], images, classes, method="ce", passes=2, targeted=False, **options)
    steps = ["step", "forward", "forward"] * 2
    assert member.told == [(classes.tolist(), False), *steps]


def test_an_image_with_zero_gradient_stays() -> None:
    class Flat(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((1, 2, 3))[:, None].expand(-1, CLASSES) * 0 + images[:1, 0, 0, :1]

    images, _ = batch(2)
    found = attack([Flat()], images, torch.tensor([0, 1]), method="mi-logit", **OPTIONS)
    assert torch.equal(found[1], images[1])
    assert found[0, 0, 0, 0].item() == pytest.approx(min(1, float(images[0, 0, 0, 0]) + 16 / 255))
    assert not math.isnan(found.sum())
