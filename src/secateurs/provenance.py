"""What a result row records so that it can be reproduced: weights, device, versions."""

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from secateurs._version import __version__


def weights_sha256(model: nn.Module) -> str:
    """`tensors_sha256` of the state dict."""
    return tensors_sha256(model.state_dict())


def tensors_sha256(tensors: Mapping[str, Any]) -> str:
    """First 16 hex digits of a SHA-256 over names, dtypes, shapes and values.

    A sparse tensor counts as the dense one; one on the meta device has no values.
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            continue  # the extra state of a module, which can be any Python value
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if not tensor.is_meta:
            digest.update(_bytes_of(tensor))
    return digest.hexdigest()[:16]


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    values = tensor.detach().cpu()
    if values.layout is not torch.strided:
        values = values.to_dense()
    values = values.resolve_conj().resolve_neg().contiguous()
    return values.reshape(-1).view(torch.uint8).numpy().data


def device_name(device: torch.device) -> str:
    """The type of a device, such as ``cpu``; with the name of the GPU for CUDA."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type


def versions() -> str:
    """Versions of the packages that numbers depend on, ``name=version`` joined by ``;``."""
    # torch.__version__ also says what it was built for, such as +cu130.
    found = {"secateurs": __version__, "torch": str(torch.__version__)}
    for package in ("torchvision", "timm", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["python"] = platform.python_version()
    return ";".join(f"{name}={number}" for name, number in found.items())
