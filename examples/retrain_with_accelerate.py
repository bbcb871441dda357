"""Prune while training with accelerate: ``python examples/retrain_with_accelerate.py``.

Needs ``pip install 'secateurs[hf]'``. Also with ``accelerate launch``, on several processes.
"""

import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from torch.utils.data import DataLoader

import secateurs as sc
from secateurs.training import Cubic, Pruner
from secateurs.zoo import load_data, load_model

set_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
digits = load_model("digits")
data = load_data("digits", model=digits, split="train").dataset
model = digits.model.train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
loader = DataLoader(data, batch_size=32, shuffle=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

# After prepare(), so that it sees the model and the optimizer that are trained.
half = len(loader)  # of four epochs' steps, one for two batches, divided over the processes
pruner = Pruner(model, optimizer, Cubic(0.95, end=half, every=5))
accelerator.register_for_checkpointing(pruner)  # masks and the place in the schedule

with tempfile.TemporaryDirectory() as own:
    folder = broadcast_object_list([own])[0]  # of the first process, on all
    for epoch in range(4):
        for images, labels in loader:
            with accelerator.accumulate(model):
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                accelerator.backward(loss)
                optimizer.step()
                if accelerator.sync_gradients:  # the optimizer really stepped
                    pruner.step()
                optimizer.zero_grad()
        accelerator.print(f"epoch {epoch}: {pruner.sparsity:.1%} pruned")
        accelerator.save_state(folder)
    accelerator.wait_for_everyone()  # the first process writes most of it
    accelerator.load_state(folder)  # as a new process would
    accelerator.wait_for_everyone()  # before the folder is removed

print(f"{pruner.steps} steps, and the zeros are held: {sc.sparsity(model).ratio:.1%}")
model.eval()
right = sum(
    int((model(images).argmax(1) == labels).sum())
    for images, labels in DataLoader(load_data("digits", model=digits).dataset, batch_size=128)
)
print(f"accuracy on the test images: {right / 896:.1%}")
