"""Sweep your own model and DataLoader: ``python examples/sweep_your_model.py``.

Any classifier and any loader that does not shuffle will do. Here the model learns to tell three
clouds of points apart, so that there is something to lose.
"""

import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secateurs.evaluation import Provenance, sweep
from secateurs.report import markdown_table, plot_rows


def clouds(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    angle = labels * (2 * torch.pi / 3)
    centres = torch.stack([angle.cos(), angle.sin()], dim=1)
    return TensorDataset(centres + 0.4 * torch.randn(count, 2, generator=generator), labels)


def train(model: nn.Module, data: TensorDataset) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    points, labels = data.tensors
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(points), labels).backward()
        optimizer.step()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
train(model, clouds(600, seed=1))
loader = DataLoader(clouds(900, seed=2), batch_size=100)

with tempfile.TemporaryDirectory() as folder:
    rows = sweep(
        model,
        loader,
        p_prune=[0, 0.3, 0.6, 0.9],
        scope=["global", "layer"],
        provenance=Provenance(model="clouds", data="three clouds", split="test"),
        output=folder,  # results.csv, results.jsonl; a second run would go on where this ended
        progress=False,
    )
    pictures = plot_rows(rows, f"{folder}/sweep")
    print(markdown_table(rows))
    print("drawn:", ", ".join(path.name for path in pictures))
