"""Sharded checkpoints, as Hugging Face writes them."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from stored_models import Net, to_file

import secateurs as sc

INDEX = "model.safetensors.index.json"


def shards(folder: Path, parts: int = 2, suffix: str = ".safetensors") -> dict[str, torch.Tensor]:
    """Write the net as Hugging Face writes a large one, with what lies beside it."""
    folder.mkdir(parents=True)
    state = Net().state_dict()
    names = list(state)
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    places: dict[str, str] = {}
    for part in range(parts):
        own = names[part * len(names) // parts : (part + 1) * len(names) // parts]
        file = f"{stem}-{part + 1:05}-of-{parts:05}{suffix}"
        held = {name: state[name] for name in own}
        if suffix == ".safetensors":
            to_file(folder / file, held, {"format": "pt"})
        else:
            torch.save(held, folder / file)
        places |= dict.fromkeys(own, file)
    total = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.json").write_text('{"model_type": "net"}')
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return state


def pruned_net(p_prune: float = 0.5, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return sc.global_prune(Net(), p_prune, **options).state_dict()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """What the index leads to, as other libraries follow it."""
    index = json.loads((folder / INDEX).read_text())
    files = {name: load_file(folder / name) for name in set(index["weight_map"].values())}
    return {name: files[file][name] for name, file in index["weight_map"].items()}
