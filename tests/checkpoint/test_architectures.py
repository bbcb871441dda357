"""Files and models of one architecture: the same weights compete, and the same are pruned."""

from pathlib import Path

import pytest
import torch
from stored_models import assert_same

import secateurs as sc
from language_models import BUILD, language_model
from secateurs.checkpoint import plan_pruning, prune_checkpoint

pytest.importorskip("transformers")


CASES = [(name, False) for name in BUILD] + [("llama", True), ("gpt2", True), ("mixtral", True)]


@pytest.mark.parametrize(("name", "tied"), CASES)
def test_pruned_as_its_model_is(tmp_path: Path, name: str, tied: bool) -> None:
    model = language_model(name, tied=tied)
    model.save_pretrained(tmp_path / "in")
    torch.save(model.state_dict(), tmp_path / "in.pt")
    targets = sc.find_targets(model)
    total = sum(target.parameter.numel() for target in targets)
    plan = plan_pruning(tmp_path / "in.pt", 0.5)
    assert [w.entry.name for w in plan.weights] == [target.name for target in targets]
    for granularity in ("weight", "kernel", "filter"):
        # Some are saved under other names, their experts apart: the units stay the same.
        summary = prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5, granularity=granularity)
        assert sum(weight.total for weight in summary.weights) == total
        found, report = type(model).from_pretrained(tmp_path / "out", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        prune_checkpoint(tmp_path / "in.pt", tmp_path / "out.pt", 0.5, granularity=granularity)
        with sc.pruned(model, 0.5, granularity=granularity):
            assert_same(found.state_dict(), model.state_dict())
            assert_same(torch.load(tmp_path / "out.pt"), model.state_dict())


def test_routers_and_embeddings_stay() -> None:
    for name, tied in CASES:
        found = {target.name for target in sc.find_targets(language_model(name, tied=tied))}
        assert not [n for n in found if ".gate." in n or "router" in n or "expert_gate" in n]
        assert not [n for n in found if "embed" in n or "shared." in n or "wte" in n]
        assert ("lm_head.weight" in found) == (not tied and name != "t5")
