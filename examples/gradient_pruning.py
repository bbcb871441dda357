"""Prune the backward pass alone: ``python examples/gradient_pruning.py``.

The network answers as before, but the gradient that reaches the image was computed with pruned
weights. A black-box attack follows such gradients so as not to lean on one network's details.
"""

import torch
import torch.nn.functional as F

import secateurs as sc
from secateurs.zoo import load_data, load_model

digits = load_model("digits")
model = digits.model
image, label = load_data("digits", model=digits, limit=10).dataset[3]


def look(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The answers, and the gradient of the loss with respect to the image."""
    x = image[None].clone().requires_grad_()
    answers = model(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(answers, torch.tensor([label])), x)
    return answers.detach(), gradient


dense_answers, dense_gradient = look(image)
for seed in range(3):
    # A seed, never the mode of the model: attacks call eval(), and draws must go on.
    with sc.gradient_pruned(model, p_prune=0.9, p_bern=0.8, seed=seed):
        answers, gradient = look(image)
    cosine = F.cosine_similarity(gradient.flatten(), dense_gradient.flatten(), dim=0)
    print(
        f"draw {seed}: same answers {torch.equal(answers, dense_answers)}, "
        f"cosine of the gradients {cosine:.2f}"
    )
    assert torch.equal(answers, dense_answers)

answers, gradient = look(image)
print(f"afterwards: same gradient {torch.equal(gradient, dense_gradient)}")
