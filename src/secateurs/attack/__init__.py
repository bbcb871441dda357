"""Adversarial attacks: `attack` images by components' names, for networks and surrogates alike."""

from secateurs.attack.epsilon import parse_epsilon
from secateurs.attack.iterative import attack
from secateurs.attack.losses import LOSSES
from secateurs.attack.method import Method, parse_method
from secateurs.attack.noise import noise

__all__ = ["LOSSES", "Method", "attack", "noise", "parse_epsilon", "parse_method"]
