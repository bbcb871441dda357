"""The options of ``secateurs transfer``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from secateurs.cli.option_types import (
    DIGITS_NETWORKS,
    MaybeWhole,
    PruningGrid,
    Ratios,
    ResumableOutput,
    Several,
    Whole,
    panel,
    scores,
)


@panel("Networks and images", 1)
@dataclass(frozen=True, kw_only=True)
class TransferImages:
    """The networks, and the images that are attacked.

    Args:
        surrogates: Networks to attack with: torchvision:NAME, timm:NAME, hf:NAME,
            package.module:function; NAME=FILE or NAME=WEIGHTS says which weights.
        targets: Networks that are scored only; default the surrogates that an attack does not use.
        hold_one_out: Attack with all surrogates but one, score the one left out, for each.
        ensemble: Attack with all surrogates together instead of each alone.
        data: A folder (DIR/images.csv with DIR/images/, DIR/val/CLASS/*, or DIR/CLASS/*), or
            digits, mnist, cifar10, ...
        data_root: The folder of named data sets, and of their downloads.
        split: Which part of the data: val, test, ...
        limit: Use this many images of those that all networks classify correctly.
        skip_corrupt: Leave out unreadable images.
        image_seed: Seed of the images' order, and of target classes if the data has none.
        img_size: Side of the attacked images, for all networks; default what the networks share,
            else 224.
        interpolation: How images are squashed to that size.
    """

    surrogates: Annotated[Several[str], Parameter(alias="--models")] = ()
    targets: Several[str] = ()
    hold_one_out: bool = False
    ensemble: bool = False
    data: Annotated[str | None, Parameter(alias="-d")] = None
    data_root: Path | None = None
    split: str | None = None
    limit: MaybeWhole = None
    skip_corrupt: bool = False
    image_seed: Whole = 0
    img_size: MaybeWhole = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    @property
    def small(self) -> bool:
        """Whether images and networks are those of the digits, which have smaller defaults."""
        words = (*self.surrogates, *self.targets)
        networks = [word.partition("=")[0] for word in words]
        return self.data in (None, "digits") and all(n in DIGITS_NETWORKS for n in networks)


@panel("How to attack", 2)
@dataclass(frozen=True, kw_only=True)
class Attack:
    """The iterative attack, the same on all surrogates; smaller defaults for the digits.

    Args:
        method: Parts joined by -: mi ni ti di rdi si admix, and one loss of ce logit margin;
            default mi-ti-di-logit.
        eps: The most that a pixel may change: 16/255 (default) or 0.0627.
        alpha: The change of a pixel in a step; default 2/255.
        steps: Steps of an attack; default 300.
        passes: Gradient passes that are averaged in a step, each with new draws; one is enough if
            nothing is drawn.
        every: Steps between two measurements of success.
        untargeted: Attack away from the true class instead of towards a target class.
        seeds: Seeds of attacks and draws; each is a repetition.
    """

    method: str | None = None
    eps: str | None = None
    alpha: str | None = None
    steps: MaybeWhole = None
    passes: Whole = 1
    every: Whole = 20
    untargeted: bool = False
    seeds: Several[int] = (0,)


@panel("How to diversify", 3)
@dataclass(frozen=True, kw_only=True)
class Recipes:
    """Ways to make a surrogate that is pruned anew at every call.

    Args:
        recipe: dwp, rapa, mup, or plain for no recipe; default dwp.
        rapa_p_bern: Of rapa: probability with which each parameter is pruned; default 0.05.
        mup_p_prune: Of mup: ratio of each layer's weights; default 0.15.
    """

    recipe: Several[str] = ()
    rapa_p_bern: Ratios = ()
    mup_p_prune: Ratios = ()


@panel("How dwp prunes", 4)
@dataclass(frozen=True, kw_only=True)
class DwpPruning(PruningGrid):
    """The settings of the recipe dwp.

    Args:
        p_prune: Ratios of units that are candidates, 0 to 1; default 0.3.
        p_bern: Probability with which each candidate is pruned; default 0.5.
        redraw: forward (default), step, or a number of draws that are used in rotation.
    """

    score: Annotated[Several[str], scores(data_free=True)] = ()
    redraw: Several[str] = ()


@panel("Choosing settings", 5)
@dataclass(frozen=True, kw_only=True)
class Searching:
    """Whether and how each recipe's setting is searched.

    Args:
        search: Choose each recipe's best setting on a part of the images, report on the rest.
        search_images: Number of images to choose on; default a quarter.
        search_steps: Steps of the attacks of the search; default --steps.
    """

    search: bool = False
    search_images: MaybeWhole = None
    search_steps: MaybeWhole = None


@panel("Running", 6)
@dataclass(frozen=True, kw_only=True)
class TransferRunning(ResumableOutput):
    """The device and the output.

    Args:
        batch_size: Images that are attacked together.
        threads: Number of CPU threads.
        resume: Continue a run, also with more settings or seeds, or delete its results first.
        save_images: Keep the attacked images as PNG, as TransferAttack's evaluation reads them.
        title: Title of the plots.
    """

    batch_size: Annotated[MaybeWhole, Parameter(alias="-b")] = None
    threads: MaybeWhole = None
    save_images: bool = False
    title: str | None = None
