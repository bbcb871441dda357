import torch
from torch import nn
from torch.utils.data import DataLoader

from secateurs.evaluation import Provenance, accumulate_gradients, sweep


def test_only_rows_whose_score_needs_gradients_name_the_images() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 3))
    loader = DataLoader([(torch.randn(1, 2, 3), i % 3) for i in range(6)], batch_size=3)  # type: ignore[arg-type]
    accumulate_gradients(model, loader)
    rows = sweep(
        model,
        loader,
        p_prune=0.5,
        score=["magnitude", "taylor"],
        provenance=Provenance(score_data="6"),
    )
    assert {row.score: row.score_data for row in rows} == {"magnitude": "", "taylor": "6"}
