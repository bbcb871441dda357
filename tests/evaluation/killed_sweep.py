"""A sweep to be killed: slow, and saving after every step. Arguments: folder, workers."""

import sys
import time
from pathlib import Path
from typing import Any

from small_nets import Images, loader, network

from secateurs.evaluation import sweep

GRID: dict[str, Any] = {"p_prune": [0, 0.5, 0.9], "p_bern": [1, 0.5], "draws": 2, "seed": 3}

if __name__ == "__main__":
    images = Images(before=lambda index: time.sleep(0.05))
    sweep(
        network(),
        loader(images, batch_size=4, num_workers=int(sys.argv[2])),
        output=Path(sys.argv[1]),
        save_every=0.0,
        **GRID,
    )
