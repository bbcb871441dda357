"""Tiny language models of transformers, one of each way to lay out weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_EXPERTS = {"num_local_experts": 3, "num_experts_per_tok": 2}


def _llama(tf: Any, **options: Any) -> nn.Module:
    return tf.LlamaForCausalLM(tf.LlamaConfig(**_SMALL, **options))


def _gpt2(tf: Any, **options: Any) -> nn.Module:
    config = tf.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=32, n_positions=8, bos_token_id=0,
        eos_token_id=1, **options,
    )  # fmt: skip
    return tf.GPT2LMHeadModel(config)


def _t5(tf: Any, **options: Any) -> nn.Module:
    config = tf.T5Config(
        d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, vocab_size=32, **options
    )
    return tf.T5ForConditionalGeneration(config)


def _mixtral(tf: Any, **options: Any) -> nn.Module:
    return tf.MixtralForCausalLM(tf.MixtralConfig(**_SMALL, **_EXPERTS, **options))


def _qwen2_moe(tf: Any, **options: Any) -> nn.Module:
    config = tf.Qwen2MoeConfig(
        **_SMALL, moe_intermediate_size=8, shared_expert_intermediate_size=12, num_experts=3,
        num_experts_per_tok=2, **options,
    )  # fmt: skip
    return tf.Qwen2MoeForCausalLM(config)


def _gpt_oss(tf: Any, **options: Any) -> nn.Module:
    return tf.GptOssForCausalLM(tf.GptOssConfig(**_SMALL, **_EXPERTS, head_dim=8, **options))


def _llama4(tf: Any, **options: Any) -> nn.Module:
    config = tf.Llama4TextConfig(
        **_SMALL, **_EXPERTS, head_dim=8, intermediate_size_mlp=24, **options
    )
    return tf.Llama4ForCausalLM(config)


BUILD: dict[str, Callable[..., nn.Module]] = {
    "llama": _llama,
    "gpt2": _gpt2,
    "t5": _t5,
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "gpt_oss": _gpt_oss,
    "llama4": _llama4,
}
EXPERTS = ("mixtral", "qwen2_moe", "gpt_oss")  # those with several implementations


def language_model(name: str, *, tied: bool = False) -> nn.Module:
    """A model with random weights, its head tied to its embedding or not."""
    import transformers

    torch.manual_seed(0)
    model = BUILD[name](transformers, tie_word_embeddings=tied).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # not all begin at random
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return model
