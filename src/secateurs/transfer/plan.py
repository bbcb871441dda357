"""What a benchmark runs: the protocol of the attacks, and surrogates with their targets."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from secateurs._validation import check_count
from secateurs.attacks.method import Method
from secateurs.errors import Argument, InvalidArgumentError
from secateurs.transfer.attack_variants import AttackVariant
from secateurs.transfer.network import Network


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How images are attacked; the defaults are usual in the field.

    Attributes:
        method: the attack's components and its loss.
        eps: the most that a pixel may change, of 1.
        alpha: the change of a pixel in a step, of 1.
        steps: steps of the attack.
        passes: gradient passes that are averaged in a step.
        every: steps between two measurements of success; the last step is always measured.
        targeted: whether the attack is targeted.
        batch_size: images that are attacked together.

    Raises:
        InvalidArgumentError: a number is out of range.
    """

    method: Method
    eps: float = 16 / 255
    alpha: float = 2 / 255
    steps: int = 300
    passes: int = 1
    every: int = 20
    targeted: bool = True
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("steps", "passes", "every", "batch_size"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))

    @property
    def checkpoints(self) -> list[int]:
        """The steps after which success is measured."""
        return [*range(self.every, self.steps, self.every), self.steps]


@dataclass(frozen=True, eq=False)
class AttackGroup:
    """Surrogates that are attacked together, and the targets that the images are scored on.

    Attributes:
        surrogates: their logits are averaged; none for noise, which needs no network.
        targets: networks that the attack does not use.
    """

    surrogates: Sequence[Network]
    targets: Sequence[Network]

    @property
    def name(self) -> str:
        """The surrogates' names joined by ``;``, as in rows."""
        return ";".join(network.name for network in self.surrogates)

    @property
    def scored(self) -> list[Network]:
        """The targets, then the surrogates."""
        return [*self.targets, *self.surrogates]


@dataclass(frozen=True, eq=False)
class Job:
    """One attack on all images, which gives a row for every network and checkpoint."""

    group: AttackGroup
    variant: AttackVariant
    seed: int


def make_groups(
    surrogates: Sequence[Network],
    targets: Sequence[Network] = (),
    *,
    hold_one_out: bool = False,
    together: bool = False,
) -> list[AttackGroup]:
    """Pair surrogates with targets.

    Args:
        surrogates: networks whose weights the attacker has.
        targets: networks that are scored for every group.
        hold_one_out: for each surrogate, attack with all the others together, and score it (and
            ``targets``).
        together: attack with all surrogates together. Otherwise each attacks alone, and without
            ``targets`` all the other surrogates are scored.

    Raises:
        InvalidArgumentError: nothing would be left to attack with, or to score.
    """
    _check_names([*surrogates, *targets])
    if not surrogates:
        raise InvalidArgumentError("no surrogates: name at least one network to attack with")
    if hold_one_out:
        if len(surrogates) < 2:
            raise InvalidArgumentError(
                Argument("hold_one_out"),
                f" leaves out one of the surrogates, but {surrogates[0].name} is the only one: "
                "name two or more, or name ",
                Argument("targets"),
                " instead",
            )
        return [
            AttackGroup([each for each in surrogates if each is not held], [held, *targets])
            for held in surrogates
        ]
    if together:
        if not targets:
            raise InvalidArgumentError(
                "all surrogates together leave nothing to score: name ",
                Argument("targets"),
                ", or write ",
                Argument("hold_one_out", True),
            )
        return [AttackGroup(list(surrogates), list(targets))]
    if not targets and len(surrogates) < 2:
        raise InvalidArgumentError(
            "nothing to score: name ",
            Argument("targets"),
            f" beside {surrogates[0].name}, or more surrogates",
        )
    return [
        AttackGroup([each], list(targets) or [other for other in surrogates if other is not each])
        for each in surrogates
    ]


def noise_group(groups: Sequence[AttackGroup]) -> AttackGroup:
    """The group of noise: no surrogates, and every target once."""
    return AttackGroup(
        [], list(dict.fromkeys(target for group in groups for target in group.targets))
    )


def all_networks(groups: Sequence[AttackGroup]) -> list[Network]:
    """Every network, each once."""
    return list(dict.fromkeys(network for group in groups for network in group.scored))


def _check_names(networks: Sequence[Network]) -> None:
    for name, times in Counter(network.name for network in networks).items():
        if times > 1:
            raise InvalidArgumentError(
                f"{name} is named twice; name each network once, as a surrogate or as a target"
            )
