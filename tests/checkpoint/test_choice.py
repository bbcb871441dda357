"""What competes by default is what global_prune would choose, where names say it."""

import pytest
import torch
from torch import nn

import secateurs as sc
from secateurs.checkpoint.choice import KINDS, choose
from secateurs.checkpoint.contents import NAMES, Entry


def entries_of(model: nn.Module) -> list[Entry]:
    """The state dict as a file would hold it."""
    found: dict[int, list[str]] = {}
    state = model.state_dict(keep_vars=True)
    for name, tensor in state.items():
        found.setdefault(id(tensor), []).append(name)
    return [
        Entry(n[0], NAMES[state[n[0]].dtype], tuple(state[n[0]].shape), 0, 0, tuple(n[1:]))
        for n in found.values()
    ]


def assert_agrees(model: nn.Module, **options) -> None:
    ours = [entry.name for entry in choose(entries_of(model), **options)]
    models = [target.name for target in sc.find_targets(model, **options)]
    assert ours == models


@pytest.mark.parametrize(
    "name",
    [
        "resnet18", "resnext50_32x4d", "densenet121", "mobilenet_v3_small", "efficientnet_b0",
        "convnext_tiny", "vit_b_16", "swin_t", "swin_v2_t", "maxvit_t", "squeezenet1_0",
        "shufflenet_v2_x0_5", "inception_v3", "googlenet", "alexnet", "mnasnet0_5",
    ],
)  # fmt: skip
def test_models_of_torchvision(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        model = torchvision.models.get_model(name, **extra)
    ours = [entry.name for entry in choose(entries_of(model))]
    # find_targets refuses what has no values, so the kinds are asked for by hand.
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    models = [
        name
        for name, _ in model.named_parameters()
        if name.endswith("in_proj_weight")
        or (
            name.endswith("weight")
            and isinstance(model.get_submodule(name.rpartition(".")[0]), kinds)
        )
    ]
    assert ours == models


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224", "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224",
        "beit_base_patch16_224", "mixer_s16_224", "convnextv2_atto", "resnetv2_50", "levit_128s",
        "coat_lite_tiny", "xcit_nano_12_p16_224", "eva02_tiny_patch14_224", "mobilevit_xxs",
        "efficientformer_l1", "cait_xxs24_224", "regnetx_002", "pit_ti_224", "twins_pcpvt_small",
        "poolformer_s12", "volo_d1_224", "maxvit_tiny_tf_224", "tf_efficientnet_b0",
    ],
)  # fmt: skip
def test_models_of_timm(name: str) -> None:
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(name)
    except NotImplementedError:  # torch 2.11 cannot build every model without memory
        model = timm.create_model(name)
    ours = [entry.name for entry in choose(entries_of(model))]
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    models = [
        name
        for name, parameter in model.named_parameters()
        if name.endswith("weight")
        and isinstance(model.get_submodule(name.rpartition(".")[0]), kinds)
    ]
    assert ours == models


class StackedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.zeros(3, 4, 10))
        self.gate_up_proj_bias = nn.Parameter(torch.zeros(3, 10))
        self.down_proj = nn.Parameter(torch.zeros(3, 5, 4))
        self.down_proj_scale = nn.Parameter(torch.zeros(3, 5, 1))


class Mixture(nn.Module):
    """Routers beside experts, stacked or apart, and gates that are layers."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Sequential(nn.Linear(4, 3))
        self.gate = nn.Linear(4, 3)
        self.shared_expert_gate = nn.Linear(4, 1)
        self.experts = StackedExperts()
        self.apart = nn.Module()
        self.apart.gate = nn.Linear(4, 3)
        self.apart.experts = nn.ModuleList(nn.ModuleDict({"gate": nn.Linear(4, 4)}) for _ in "ab")
        self.mlp = nn.ModuleDict({"gate": nn.Linear(4, 4), "up_gate": nn.Linear(4, 4)})


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(5, 4)
        self.patch_embed = nn.Conv2d(3, 4, 2)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.layer_norm = nn.LayerNorm((3, 4))
        self.attention = nn.MultiheadAttention(4, 2)
        self.separate = nn.MultiheadAttention(4, 2, kdim=3, vdim=3)
        self.up = nn.ConvTranspose1d(4, 4, 2)
        self.volume = nn.Conv3d(1, 1, 2)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5)
        self.tied_embed = nn.Embedding(6, 4)
        self.tied_head = nn.Linear(4, 6, bias=False)
        self.tied_head.weight = self.tied_embed.weight
        self.lstm = nn.LSTM(4, 4, bidirectional=True, proj_size=2)
        self.cell = nn.GRUCell(4, 4)
        self.moe = Mixture()


@pytest.mark.parametrize("layers", [None, *(kind for kind in KINDS if kind not in ("all",))])
def test_kinds_of_layers(layers: str | None) -> None:
    model = Mixed()
    if layers == "conv1d":  # a file does not say which convolutions are transposed
        assert [e.name for e in choose(entries_of(model), layers=layers)] == ["up.weight"]
        return
    assert_agrees(model, layers=layers)


def test_all_is_every_floating_parameter() -> None:
    assert_agrees(Mixed(), layers="all")


@pytest.mark.parametrize(
    "options",
    [
        {"include": "head"},
        {"include": "attention"},
        {"include": ["*", "embed_tokens.weight"]},
        {"include": "*.bias"},
        {"include": "lstm"},
        {"include": ["lstm.*_l0", "cell"]},
        {"include": "moe.experts"},
        {"include": ["*", "moe.gate", "moe.apart.gate"]},
        {"include": "tied_head"},
        {"include": ["*", "tied_embed"], "exclude": "moe"},
        {"exclude": "up"},
        {"exclude": ["attention", "*.out_proj"]},
        {"include": ["up", "volume"], "exclude": "up"},
        {"include": "norm"},
    ],
)
def test_patterns_mean_what_they_mean_for_models(options) -> None:
    if options == {"include": "norm"}:
        # The file's buffers match as well, and nothing tells them from parameters.
        with pytest.raises(sc.InvalidArgumentError, match="num_batches_tracked has dtype I64"):
            choose(entries_of(Mixed()), **options)
        return
    assert_agrees(Mixed(), **options)


def test_routers_and_tied_embeddings_stay_and_gates_of_layers_go() -> None:
    names = {target.name for target in sc.find_targets(Mixed())}
    assert {name for name in names if name.startswith(("moe", "tied", "lstm", "cell"))} == {
        "moe.experts.gate_up_proj",
        "moe.experts.down_proj",
        "moe.apart.experts.0.gate.weight",
        "moe.apart.experts.1.gate.weight",
        "moe.mlp.gate.weight",
        "moe.mlp.up_gate.weight",
    }


def test_names_of_embeddings_and_norms() -> None:
    names = [
        "transformer.wte", "transformer.wpe", "shared", "model.embed_tokens",
        "bert.embeddings.word_embeddings", "bert.embeddings.position_embeddings",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", "tok_embeddings",
        "gpt_neox.embed_in", "token_embedding", "emb", "norm1", "input_layernorm", "ln_1", "bn1",
    ]  # fmt: skip
    layers = [
        "lm_head", "fc", "time_embed.0", "time_embedding.linear_1", "embeddings_project",
        "context_embedder", "embed_out", "q_proj", "mlp.gate", "bnb",
    ]  # fmt: skip
    entries = [Entry(f"{name}.weight", "BF16", (4, 4), 0, 32) for name in (*names, *layers)]
    assert [e.name for e in choose(entries)] == [f"{name}.weight" for name in layers]
    # A layer that embeds patches has a bias, which no embedding has.
    parts = {"weight": (4, 4), "bias": (4,)}
    entries = [Entry(f"patch_embedding.{n}", "F32", shape, 0, 0) for n, shape in parts.items()]
    assert [e.name for e in choose(entries)] == ["patch_embedding.weight"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"layers": "conv2"}, "did you mean conv2d"),
        ({"include": "hed"}, "did you mean head"),
        ({"exclude": "x*"}, "matches no tensor and no module"),
        ({"include": []}, "include takes one or more names"),
        ({"exclude": "*"}, "nothing to prune"),
        ({"include": "norm.num_batches_tracked"}, "cannot be pruned"),
    ],
)
def test_mistakes(options, complaint: str) -> None:
    with pytest.raises(sc.InvalidArgumentError, match=complaint):
        choose(entries_of(Mixed()), **options)
