"""What ``secateurs prune`` shows in a terminal while it works."""

import re
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from test_cli_process import read_all

from secateurs.cli import main


@pytest.mark.parametrize("compressed", [False, True])
def test_in_a_terminal_there_is_a_bar_of_bytes_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    pty = pytest.importorskip("pty")
    save_file({"layer.weight": torch.randn(512, 512)}, tmp_path / "in.safetensors")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    said = bytearray()
    reader = threading.Thread(target=read_all, args=(ours, said))
    reader.start()
    output = ["out.safetensors.zst", "--compress"] if compressed else ["out.safetensors"]
    words = ["prune", "in.safetensors", "--p-prune", "0.5", "-o", *output]
    with open(theirs, "w") as terminal, monkeypatch.context() as patch:  # noqa: PTH123
        patch.setattr(sys, "stdout", terminal)
        patch.setattr(sys, "stderr", terminal)
        with pytest.raises(SystemExit) as caught:
            main(words)
    reader.join()
    assert caught.value.code == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    bars = [line for line in lines if line.startswith("pruning ━")]
    assert bars, lines
    assert max(map(len, bars)) <= 100
    # The last one is full: so many of so many megabytes, at so many a second.
    found = re.search(r" (\d+\.\d)/(\d+\.\d) MB (\d+\.\d [kMG]B/s) left", bars[-1])
    assert found is not None, bars
    assert found[1] == found[2]
    assert lines[-1].startswith("wrote out.safetensors")
    assert said.count(b"\x1b[?25l") == said.count(b"\x1b[?25h") > 0  # the cursor is back
