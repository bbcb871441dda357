"""Surrogates: models that are pruned anew at every call, without a change of their weights."""

from secateurs.surrogates._ensemble import Ensemble, ensemble
from secateurs.surrogates._recipes import MUP, RECIPES, dwp, mup, rapa
from secateurs.surrogates.diversified import Diversified

__all__ = ["MUP", "RECIPES", "Diversified", "Ensemble", "dwp", "ensemble", "mup", "rapa"]
