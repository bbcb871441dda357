"""Surrogates: models that are pruned afresh at every call, and leave their weights as they are."""

from secateurs.surrogate.diversified import Diversified
from secateurs.surrogate.ensemble import Ensemble, ensemble
from secateurs.surrogate.mup import MUP
from secateurs.surrogate.recipes import RECIPES, dwp, mup, rapa

__all__ = ["MUP", "RECIPES", "Diversified", "Ensemble", "dwp", "ensemble", "mup", "rapa"]
