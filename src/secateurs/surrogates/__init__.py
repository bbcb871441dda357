"""Surrogates: models that are pruned afresh at every call, and leave their weights as they are."""

from secateurs.surrogates._ensemble import Ensemble, ensemble
from secateurs.surrogates._mup import MUP
from secateurs.surrogates._recipes import RECIPES, dwp, mup, rapa
from secateurs.surrogates.diversified import Diversified

__all__ = ["MUP", "RECIPES", "Diversified", "Ensemble", "dwp", "ensemble", "mup", "rapa"]
