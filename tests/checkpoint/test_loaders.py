"""The libraries that people load checkpoints with load the pruned ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from stored_models import assert_same

import secateurs as sc
from secateurs.checkpoint import prune_checkpoint


def tiny_bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return transformers.BertForSequenceClassification(config)


def tiny_llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
    )
    return transformers.LlamaForCausalLM(config).bfloat16()


def tiny_vit():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=4,
    )
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("shard", ["5GB", "8KB"], ids=["one-file", "shards"])
@pytest.mark.parametrize("build", [tiny_bert, tiny_llama, tiny_vit])
def test_transformers_loads_what_was_pruned(tmp_path: Path, build, shard: str) -> None:
    model = build()
    model.save_pretrained(tmp_path / "in", max_shard_size=shard)
    assert (shard == "8KB") == (tmp_path / "in" / "model.safetensors.index.json").exists()
    summary = prune_checkpoint(tmp_path / "in", tmp_path / "out", 0.5)
    names = {target.name for target in sc.find_targets(model)}
    assert len(summary.weights) == len(names)  # some are saved under older names
    found, report = type(model).from_pretrained(
        tmp_path / "out", output_loading_info=True, dtype="auto"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    zeros = {name: (p == 0).sum().item() for name, p in found.named_parameters() if name in names}
    total = sum(p.numel() for name, p in found.named_parameters() if name in names)
    assert sum(zeros.values()) == round(0.5 * total)
    if model.dtype == torch.float32:  # random weights of 32 bits hardly tie
        sc.global_prune(model, 0.5)
        assert_same(found.state_dict(), model.state_dict())


def test_timm_loads_what_was_pruned(tmp_path: Path) -> None:
    import timm

    model = timm.create_model("test_vit", num_classes=10)
    save_file(model.state_dict(), tmp_path / "in.safetensors")
    torch.save(model.state_dict(), tmp_path / "in.pth")
    for suffix in (".safetensors", ".pth"):
        source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
        prune_checkpoint(source, output, 0.5)
        found = timm.create_model("test_vit", num_classes=10, checkpoint_path=str(output))
        pruned = sc.restore(model)
        assert_same(found.state_dict(), sc.global_prune(pruned, 0.5).state_dict())
