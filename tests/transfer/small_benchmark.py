"""A small benchmark on the digits, for the tests of transfer attacks. Run it to have it killed.

Arguments: the output folder, and for each kill after how many batches of a process it comes.
"""

import os
import signal
import sys
from functools import cache
from typing import Any

from digit_nets import networks
from secateurs.attacks import parse_method
from secateurs.results import TransferRow
from secateurs.transfer import (
    AttackVariants,
    Benchmark,
    ImageOrigin,
    Protocol,
    choose_images,
    fit_size,
    make_groups,
    pixel_preprocess,
)
from secateurs.zoo import LoadedData, load_data


def benchmark(
    *names: str, limit: int = 13, recipe: tuple[str, ...] = ("dwp",), **options: Any
) -> Benchmark:
    """Hold-one-out over three networks; 13 images in batches of 4 or so."""
    nets = networks(*(names or ("hidden", "convolved", "normed")))
    fit_size(nets, 8)
    protocol: dict[str, Any] = {
        "method": parse_method("mi-di-logit"),
        "eps": 64 / 255,
        "alpha": 16 / 255,
        "steps": 5,
        "every": 2,
        "batch_size": 4,
    }
    known = {*protocol, "targeted", "passes"}
    given = {name: options.pop(name) for name in list(options) if name in known}
    return Benchmark(
        groups=make_groups(nets, hold_one_out=True),
        images=choose_images(digits(), nets, limit=limit),
        variants=options.pop("variants", None) or AttackVariants(recipe=recipe, p_bern=[0.5]).all,
        protocol=Protocol(**protocol | given),
        origin=ImageOrigin(data="digits", split="test", interpolation="bicubic"),
        **options,
    )


@cache
def digits() -> LoadedData:
    return load_data("digits", preprocess=pixel_preprocess(8, 1))


def outcome(rows: list[TransferRow]) -> list[dict[str, Any]]:
    """The rows without the time that they took."""
    return [{**row.as_dict(), "seconds": None} for row in rows]


def run_and_die(folder: str, batches: int) -> None:
    """Run the benchmark, and kill this process before the batch after so many."""
    from secateurs.transfer import attack_runner

    attack, left = attack_runner.attack_batch, [None] * batches

    def dying(*words: Any, **options: Any) -> Any:
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left.pop()
        return attack(*words, **options)

    attack_runner.attack_batch = dying
    benchmark(seeds=(0, 1)).run(output=folder)


if __name__ == "__main__":
    for batches in map(int, sys.argv[2:]):
        # Gradients are computed in the children alone: where there is a GPU, torch refuses them
        # after a fork of a process that has computed some.
        child = os.fork()
        if child == 0:
            run_and_die(sys.argv[1], batches)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
