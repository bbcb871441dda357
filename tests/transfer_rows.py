"""Rows of a transfer benchmark to test with: realistic, and quick to make."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from secateurs.results import TransferRow, hit_columns

BASE: dict[str, Any] = {
    "surrogates": "timm:lite0",
    "surrogates_weights": "0123456789abcdef",
    "target": "timm:squeezenet1_1",
    "target_sha256": "fedcba9876543210",
    "role": "holdout",
    "variant": "plain",
    "recipe": "",
    "prune_type": "",
    "redraw": "",
    "granularity": "",
    "scope": "",
    "score": "",
    "layers": "",
    "include": "",
    "exclude": "",
    "p_prune": 0.0,
    "p_bern": 0.0,
    "method": "mi-ti-di-logit",
    "passes": 1,
    "eps": 16 / 255,
    "alpha": 2 / 255,
    "steps": 60,
    "seed": 0,
    "targeted_attack": True,
    "target_classes": "given",
    "data": "images/imagenet_compatible",
    "split": "",
    "images": "00112233aabbccdd",
    "search_part": "",
    "img_size": 224,
    "preprocess": "lite0: resize 224 bicubic",
    "batch_size": 16,
    "rounded": True,
    "dtype": "float32",
    "step": 60,
    "achieved": 0.0,
    "candidates_count": 300,
    "seconds": 12.5,
    "device": "cpu",
    "versions": "secateurs=0.1.0;torch=2.14.1",
}
PRUNED: dict[str, Any] = {
    "prune_type": "global",
    "redraw": "forward",
    "granularity": "weight",
    "scope": "global",
    "score": "magnitude",
}


def make_transfer_row(targeted: str = "0110", **changes: Any) -> TransferRow:
    """A row with these targeted hits; anything else can be named.

    A variant such as "dwp 0.3 0.5" fills in its recipe and ratios.
    """
    untargeted = changes.pop("untargeted_hits", targeted)
    hits = hit_columns(map(int, untargeted), map(int, targeted))
    if changes.get("targeted_attack") is False:
        hits = hit_columns(map(int, untargeted)) | {"target_classes": ""}
    return TransferRow(**(BASE | _named(changes.get("variant", "plain")) | hits | changes))


def _named(variant: str) -> dict[str, Any]:
    recipe, *ratios = variant.split()
    if recipe == "noise":
        return {"recipe": "noise", "surrogates": "", "surrogates_weights": "", "passes": 0}
    if recipe == "plain":
        return {}
    numbers = [float(ratio) for ratio in ratios if ratio.replace(".", "").isdigit()]
    p_prune, p_bern = (*numbers, 1.0, 1.0)[:2]
    achieved = p_prune * p_bern
    return PRUNED | {"recipe": recipe, "p_prune": p_prune, "p_bern": p_bern, "achieved": achieved}


def make_benchmark(
    *,
    variants: Sequence[str] = ("plain", "dwp 0.3 0.5", "noise"),
    surrogates: Iterable[str] = ("timm:lite0",),
    targets: Sequence[str] = ("timm:lite0", "timm:squeezenet1_1", "torchvision:resnet18"),
    seeds: int = 2,
    count: int = 60,
    steps: int = 60,
    **changes: Any,
) -> list[TransferRow]:
    """Rows of a whole benchmark, outcomes drawn from a fixed seed; later variants do better."""
    rng = random.Random(0)
    hardness = [rng.random() for _ in range(count)]
    rows: list[TransferRow] = []
    for names in surrogates:
        for number, variant in enumerate(variants):
            for target in targets:
                whitebox = target in names.split(";")
                if variant == "noise" and whitebox and len(targets) == 1:
                    continue
                for seed in range(seeds):
                    for step in range(20, steps + 1, 20):
                        rate = 0.9 if whitebox else 0.1 + 0.1 * number
                        rate *= 0.0 if variant == "noise" else step / steps
                        hits = "".join(
                            str(int((h + 0.3 * rng.random()) / 1.3 < rate)) for h in hardness
                        )
                        away = "".join(str(int(c == "1" or rng.random() < 0.2)) for c in hits)
                        row = {
                            "target": target,
                            "role": "whitebox" if whitebox and variant != "noise" else "holdout",
                            "seed": seed,
                            "step": step,
                            "steps": steps,
                            "surrogates": "" if variant == "noise" else names,
                            "untargeted_hits": away,
                            "variant": variant,
                        }
                        rows.append(make_transfer_row(hits, **(row | changes)))
    return rows
