"""The loop of an iterative attack: gradient, momentum, a step by the sign, projection."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from secateurs._io.text import quoted
from secateurs._validation import check_count, check_seed
from secateurs.attacks.adversary import check_classes, check_images, check_members
from secateurs.attacks.epsilon import parse_epsilon
from secateurs.attacks.loss_gradient import Objective
from secateurs.attacks.method import Method, parse_method
from secateurs.attacks.smoothing import smoothed
from secateurs.errors import FailureError, InvalidArgumentError
from secateurs.surrogates.wrappers import call_each

Checkpoint = Callable[[int, Tensor], object]


def attack(
    members: Sequence[nn.Module],
    images: Tensor,
    classes: Tensor,
    *,
    method: Method | str,
    eps: float | str,
    alpha: float | str,
    steps: int,
    targeted: bool = True,
    passes: int = 1,
    seed: int = 0,
    every: int = 20,
    chunk: int | None = None,
    on_checkpoint: Checkpoint | None = None,
) -> Tensor:
    r"""Change images by at most :math:`\epsilon` so that networks predict other classes.

    From :math:`x_0 = x` and :math:`g_0 = 0`, each step computes

    .. math::

        g_{t+1} = \mu g_t + \frac{W * G_t}{\mathrm{mean} |W * G_t|}, \qquad
        x_{t+1} = \mathrm{clip}_{x,\epsilon}(x_t + \alpha\, \mathrm{sign}\, g_{t+1}),

    where :math:`G_t` is the gradient of the loss of the mean of the members' logits, averaged over
    S passes, :math:`W` is the kernel of TI (`secateurs.attacks.smoothing`), and clip keeps each
    pixel in [0, 1] and within :math:`\epsilon` of the image.

    MI: Dong, Liao, Pang, Su, Zhu, Hu and Li 2018, "Boosting adversarial attacks with momentum",
    arXiv:1710.06081. The paper divides by the L1 norm of an image's gradient; here it is the mean,
    as in the field's code. This changes no sign, so no step, but scales the step of NI.
    NI: Lin, Song, He, Wang and Hopcroft 2020, arXiv:1908.06281: the gradient is taken at
    :math:`x_t + \alpha \mu g_t`.

    Random numbers depend on seed, step, pass and member. The result for an image does not depend on
    the other images of the batch, except with Admix, which mixes them, and with members whose own
    draws depend on the number of their calls or on their inputs.

    Args:
        members: networks from pixels in [0, 1], (batch, channels, height, width), to logits, in
            eval mode. Each draws its own input diversity. On members that have these methods,
            ``aim(classes, targeted)`` is called once, with the classes of the first ``chunk``
            images, and ``step()`` before every step. The members' weights do not change, nor does
            the ``grad`` of their weights.
        images: pixels in [0, 1]. Their dtype, device and memory format are kept; on CPUs
            ``channels_last`` is often faster.
        classes: (batch,): the target classes, or for an untargeted attack the true classes.
        method: the components, see `parse_method`.
        eps: the most that a pixel may change, see `parse_epsilon`.
        alpha: the change of a pixel in a step.
        steps: the number of steps.
        targeted: whether networks should predict ``classes``, instead of any others.
        passes: S, gradients to average in a step; each is a new forward pass, with a new draw of
            input diversity and a new mask of a `secateurs.surrogates.Diversified` member.
        seed: seed of the random numbers of the method; members have their own.
        every: steps between two calls of ``on_checkpoint``.
        chunk: how many images go through a member at once; None for all. It changes memory and
            speed, but the result only by rounding: all parts of a batch have the same input
            diversity, and members that can be ``frozen()`` keep the draw of the first part.
        on_checkpoint: called as ``on_checkpoint(step, adversarial)`` after the steps ``every``,
            ``2 * every`` and so on, and after the last, under ``no_grad``.

    Returns:
        The adversarial images.

    Raises:
        InvalidArgumentError: an argument is wrong, or members have different numbers of classes.
        FailureError: a gradient is NaN or infinite, or does not exist.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> images, targets = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 2])
        >>> adversarial = attack(
        ...     [net], images, targets, method="mi-logit", eps="16/255", alpha="4/255", steps=10
        ... )
        >>> print(round(float((adversarial - images).abs().max() * 255), 3))
        16.0
    """
    members = check_members(members)
    check_images(images)
    check_classes(classes, images)
    method = parse_method(method) if isinstance(method, str) else method
    if not isinstance(method, Method):
        raise InvalidArgumentError(f"method must be a Method or its name, got {quoted(method)}")
    eps, alpha = parse_epsilon(eps), parse_epsilon(alpha, name="alpha")
    steps, passes = check_count("steps", steps), check_count("passes", passes)
    every = check_count("every", every)
    chunk = len(images) if chunk is None else check_count("chunk", chunk)
    seed = check_seed("seed", seed)
    with torch.inference_mode(False), torch.enable_grad():
        images = images.detach().clone()
        classes = classes.detach().clone().to(images.device, torch.int64)
        call_each(members, "aim", classes[:chunk], targeted)
        objective = Objective(members, classes, targeted, method, passes, seed, chunk)
        return _iterate(objective, images, eps, alpha, steps, every, on_checkpoint)


def _iterate(
    objective: Objective,
    images: Tensor,
    eps: float,
    alpha: float,
    steps: int,
    every: int,
    on_checkpoint: Checkpoint | None,
) -> Tensor:
    method = objective.method
    low, high = (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)
    momentum, found = torch.zeros_like(images), images
    for step in range(1, steps + 1):
        call_each(objective.members, "step")
        ahead = alpha * method.momentum if method.nesterov else 0.0
        gradient = objective.gradient(found + ahead * momentum if ahead else found, step)
        momentum = method.momentum * momentum + _normalised(smoothed(gradient, method.ti), step)
        found = (found + alpha * momentum.sign()).clamp_(low, high)
        if on_checkpoint is not None and (step % every == 0 or step == steps):
            with torch.no_grad():
                on_checkpoint(step, found.clone())
    return found


def _normalised(gradient: Tensor, step: int) -> Tensor:
    """Divide each image's gradient by its mean absolute value; a zero gradient stays zero."""
    size = gradient.abs().mean(dim=(1, 2, 3), keepdim=True)
    wrong = ~size.isfinite().flatten()
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0, 0])
        raise FailureError(
            f"the gradient of image {index} is NaN or infinite at step {step}: does a member "
            "return such logits, or overflow in half precision?"
        )
    return gradient / torch.where(size > 0, size, torch.ones_like(size))
