"""Fixtures of the zoo's tests."""

import urllib.request
from pathlib import Path

import pytest

NOBODY = "http://127.0.0.1:9"  # the discard port: connections are refused at once


@pytest.fixture
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads fail as they do without a network, also on a machine that has one."""
    proxies = urllib.request.ProxyHandler({"http": NOBODY, "https": NOBODY})
    monkeypatch.setattr(urllib.request, "_opener", urllib.request.build_opener(proxies))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
