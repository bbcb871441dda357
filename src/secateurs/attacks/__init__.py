"""Adversarial attacks on networks and surrogates: `attack` combines components by name."""

from secateurs.attacks._noise import noise
from secateurs.attacks.epsilon import parse_epsilon
from secateurs.attacks.iterative import attack
from secateurs.attacks.losses import LOSSES
from secateurs.attacks.method import Method, parse_method

__all__ = ["LOSSES", "Method", "attack", "noise", "parse_epsilon", "parse_method"]
