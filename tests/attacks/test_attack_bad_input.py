from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attack_nets import batch, network
from secateurs.attacks import attack, noise
from secateurs.errors import FailureError, InvalidArgumentError

IMAGES, CLASSES = batch(2)


def run(**changed: Any) -> Tensor:
    arguments: dict[str, Any] = {
        "members": [network()],
        "images": IMAGES,
        "classes": CLASSES,
        "method": "mi-logit",
        "eps": "16/255",
        "alpha": "2/255",
        "steps": 2,
    }
    arguments |= changed
    return attack(
        arguments.pop("members"), arguments.pop("images"), arguments.pop("classes"), **arguments
    )


class Returning(nn.Module):
    """Answers with what a function makes of the network's logits."""

    def __init__(self, answer: Any):
        super().__init__()
        self.network, self.answer = network(), answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(self.network(images))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"members": []}, "members is empty"),
        ({"members": network()}, r"for one network write \[model\]"),
        ({"members": [network(), "resnet18"]}, "member 1 must be an nn.Module, got str"),
        ({"members": [network(), network(classes=9)]}, "one knows 7, another 9"),
        ({"members": [network(), network(classes=9)], "method": "ce"}, "one knows 7, another 9"),
        (
            {"members": [nn.Sequential(nn.BatchNorm2d(3), network())]},
            "^0 of member 0 is in",
        ),
        ({"members": [Returning(lambda z: z[:1])]}, "returned 1 row of logits for 2 images"),
        ({"members": [Returning(lambda z: z[0])]}, r"shape \(batch, classes\)"),
        (
            {"images": (IMAGES * 255).to(torch.uint8)},
            "got torch.uint8; for bytes write",
        ),
        ({"images": IMAGES.tolist()}, "got list"),
        ({"images": IMAGES[0]}, r"of shape \(batch, channels, height, width\).*got \(3, 12, 12\)"),
        ({"images": IMAGES[:0], "classes": CLASSES[:0]}, "at least one image"),
        ({"images": IMAGES * 255}, r"in \[0, 1\], got 0 to 255: divide by 255"),
        ({"images": IMAGES * 2 - 1}, "got -1 to 1: attack before normalisation"),
        ({"images": IMAGES * float("nan")}, "has pixels that are NaN: look at how"),
        ({"images": IMAGES.to(torch.float8_e5m2)}, r"write images\.float\(\)"),
        ({"members": None}, r"a sequence of networks, got NoneType: .* write \[model\]"),
        ({"members": len}, "a sequence of networks, got builtin_function_or_method"),
        ({"classes": CLASSES[:1]}, r"of shape \(2,\), got torch.int64 of shape \(1,\)"),
        ({"classes": CLASSES.float()}, "one whole number an image.*got torch.float32"),
        ({"classes": CLASSES.tolist()}, "got list"),
        ({"classes": torch.tensor([0, -1])}, "count from 0, got -1"),
        ({"classes": torch.tensor([0, 7])}, "run up to 7, but the members know classes 0 to 6"),
        ({"method": "mi"}, "names no loss"),
        ({"method": None}, "must be a Method or its name, got None"),
        ({"eps": 16}, "for 16 of 255 grey levels write 16/255"),
        ({"alpha": 0}, "alpha must be above 0"),
        ({"alpha": 2}, "^alpha .* write 2/255"),
        ({"steps": 0}, "steps must be a whole number from 1, got 0"),
        ({"steps": 2.0}, r"steps must be a whole number from 1, got 2\.0"),
        ({"passes": 0}, "passes must be a whole number from 1"),
        ({"every": 0}, "every must be a whole number from 1"),
        ({"chunk": 0}, "chunk must be a whole number from 1"),
        ({"seed": 0.5}, "seed must be an integer"),
    ],
)
def test_wrong_arguments_say_what_to_write(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        run(**changed)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_gradient_is_reported_with_image_and_step(bad: float) -> None:
    factors = torch.tensor([[1.0], [bad]], dtype=torch.float64)
    with pytest.raises(FailureError, match="of image 1 is NaN or infinite at step 1"):
        run(members=[Returning(lambda z: z * factors)])


@pytest.mark.parametrize("method", ["mi-logit", "ce"])
def test_logits_without_a_gradient_are_reported(method: str) -> None:
    wanted = nn.Parameter(torch.zeros((), dtype=torch.float64))
    for answer in (lambda z: z.detach(), lambda z: z.detach() + wanted):
        with pytest.raises(FailureError, match="do not depend on the images"):
            run(members=[Returning(answer)], method=method)


def test_other_errors_of_a_member_come_through() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(members=[nn.Sequential(nn.Flatten(), nn.Linear(4, 7))], images=IMAGES.float())


def test_dropout_in_training_mode_is_refused_and_in_eval_mode_is_not() -> None:
    member = nn.Sequential(nn.Dropout2d(0.5), network())
    with pytest.raises(InvalidArgumentError, match="call eval"):
        run(members=[member])
    run(members=[member.eval()])


@pytest.mark.parametrize(
    "layer",
    [
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.RReLU(),
        nn.MultiheadAttention(4, 1, dropout=0.5),
        nn.LSTM(4, 4, num_layers=2, dropout=0.5),
    ],
)
def test_every_layer_that_differs_in_training_mode_is_refused(layer: nn.Module) -> None:
    member = Returning(lambda z: z)
    member.layer = layer
    with pytest.raises(InvalidArgumentError, match="layer of member 0 is in training mode"):
        run(members=[member])
    run(members=[member.eval()])


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(3), nn.MultiheadAttention(4, 1)])
def test_layers_that_do_the_same_in_training_mode_are_taken(layer: nn.Module) -> None:
    member = Returning(lambda z: z)
    member.layer = layer
    assert torch.equal(run(members=[member]), run(members=[Returning(lambda z: z)]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64])
def test_classes_may_be_of_any_integer_dtype(dtype: torch.dtype) -> None:
    assert torch.equal(run(classes=CLASSES.to(dtype)), run())


def test_noise_checks_its_arguments() -> None:
    with pytest.raises(InvalidArgumentError, match="write 16/255"):
        noise(IMAGES, 16)
    with pytest.raises(InvalidArgumentError, match="divide by 255"):
        noise(IMAGES * 255, "16/255")
