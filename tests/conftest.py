"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from secateurs.criteria import CRITERIA

BESIDE = Path(__file__).resolve().parent.parent.parent / "shared"


def _beside(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable, BESIDE / name))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder with the shared {name}")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with imagenet-compatible/, MNIST/ and cifar10-jpeg/, or a skip."""
    return _beside("SECATEURS_DATA", "data")


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder with the trained networks, or a skip."""
    return _beside("SECATEURS_MODELS", "models")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all processes of a run keep the networks for the digits, so that each trains once."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "digits"
    folder.mkdir(exist_ok=True)
    return folder


# The same examples every time, and no verdict on how fast the machine is.
settings.register_profile("secateurs", derandomize=True, deadline=None)
settings.load_profile("secateurs")
# Several test processes share few cores: threads that wait for each other cost more than they give.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(CRITERIA)
    yield
    CRITERIA.clear()
    CRITERIA.update(before)


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)
