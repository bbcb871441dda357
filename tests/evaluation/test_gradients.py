import pytest
import torch
import torch.nn.functional as F
from small_nets import Images, loader, network

from secateurs.errors import InvalidArgumentError
from secateurs.evaluation import accumulate_gradients


def test_the_gradient_of_the_mean_loss_over_all_batches() -> None:
    model, images = network(), Images()
    F.cross_entropy(model.eval()(images.pixels), images.labels).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    assert accumulate_gradients(model.train(), loader(images, batch_size=7)) == len(images)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_modes_and_frozen_parameters_are_as_before() -> None:
    model = network().train()
    model.norm.eval()
    model.first.weight.requires_grad_(False)
    running = model.norm.running_mean.clone()
    accumulate_gradients(model, loader())
    assert model.first.weight.grad is not None
    assert not model.first.weight.requires_grad
    assert (model.training, model.norm.training) == (True, False)
    assert torch.equal(model.norm.running_mean, running)


def test_works_where_gradients_are_switched_off_and_on_other_dtypes() -> None:
    model = network().double()
    with torch.no_grad():
        assert accumulate_gradients(model, loader()) == 46
    assert model.head.weight.grad.dtype == torch.float64


def test_no_images_and_wrong_labels_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="gave no images: there is nothing to compute"):
        accumulate_gradients(network(), [])
    model = network(classes=3).train()
    images = Images().pixels
    batches = [(images[n : n + 8], torch.full((8,), n)) for n in (0, 8)]
    with pytest.raises(InvalidArgumentError, match="is this the right data for this model"):
        accumulate_gradients(model, batches)
    assert model.training and all(p.grad is None for p in model.parameters())
