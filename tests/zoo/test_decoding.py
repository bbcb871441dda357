"""From files to pixels: no other formats, no other files, nothing clipped, nothing enormous."""

import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from zoo_samples import imagenet, model, picture, preprocess, write_image

from secateurs.errors import FailureError
from secateurs.zoo import SKIPPED, load_data
from secateurs.zoo.decoding import read_image, to_mode
from secateurs.zoo.preprocess import CROP_MODES, Overrides, build

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
DEEP = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)


def dataset(folder: Path, put: Callable[[Path], Any], suffix: str = ".png", **options: Any) -> Any:
    """A class folder with one image that ``put`` writes, and one beside it."""
    write_image(folder / "b" / "1.png")
    path = folder / "a" / f"1{suffix}"
    path.parent.mkdir()
    put(path)
    return load_data(folder, model=model(2), **options).dataset


def bomb(path: Path) -> None:
    """A png of a few bytes that says it has 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "postscript": (lambda path: path.write_bytes(EPS), "it is no JPEG, PNG, BMP, WEBP, TIFF, PPM"),
    "gif": (lambda path: picture().save(path, "GIF"), "it is no JPEG"),
    "pipe": (os.mkfifo, "it is a pipe, not a regular file"),
    "socket": (a_socket, "it is a socket, not"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, not"),
    "link to itself": (lambda path: path.symlink_to(path.name), "[Ss]ymbolic link"),
    "link to nothing": (lambda path: path.symlink_to("absent"), "No such file"),
    "long": (lambda path: Image.new("L", (1, 50_000)).save(path), "50000 pixels, and would have"),
    "wide": (lambda path: Image.new("L", (9_000_000, 1)).save(path), "9000000 x 1 pixels"),
    "bomb": (bomb, "exceeds limit"),
    "float": (lambda path: Image.fromarray(DEEP * np.float32(0.1)).save(path, "TIFF"), "floating"),
    "32 bits": (lambda path: Image.fromarray(DEEP * np.int32(9)).save(path, "TIFF"), "signed"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_named(
    tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    put, words = REFUSED[case]
    given: dict[str, Any] = {"preprocess": preprocess(3, 224)}
    data = dataset(Path("data"), put, **given)
    with pytest.raises(FailureError, match=rf"cannot read the image .*1\.png.*{words}") as caught:
        data[0]
    assert "\n" not in str(caught.value)
    skipping = load_data(Path("data"), model=model(2), skip_corrupt=True, **given).dataset
    assert skipping[0][1] == SKIPPED
    assert skipping[1][1] == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs a script as a program")
def test_no_program_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    subprocess.run(["gs"], check=True)
    assert ran.exists()
    ran.unlink()
    data = dataset(tmp_path / "data", lambda path: path.write_bytes(EPS), ".jpg")
    with pytest.raises(FailureError, match="it is no JPEG"):
        data[0]
    assert not ran.exists()


@pytest.mark.parametrize("mode", CROP_MODES)
def test_only_where_the_shorter_side_is_resized_can_it_become_enormous(
    tmp_path: Path, mode: str
) -> None:
    base = {"img_size": 8, "crop_pct": 0.5, "interpolation": "bilinear", "crop_mode": mode}
    values = base | {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    Image.new("L", (40, 200_000)).save(tmp_path / "1.png")
    write_image(tmp_path / "a" / "1.png")
    (tmp_path / "1.png").replace(tmp_path / "a" / "2.png")
    data = load_data(tmp_path, preprocess=build(values, Overrides(), "test")).dataset
    if mode == "border":
        with pytest.raises(
            FailureError, match=r"image .*2\.png of 40 x 200000 .*remove it"
        ) as caught:
            data[1]
        assert "\n" not in str(caught.value)
    else:
        assert data[1][0].shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_16_bits_are_scaled(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"1{suffix}"
    Image.fromarray(DEEP).save(path)
    expected = torch.from_numpy((DEEP >> 8).astype(np.int16))
    levels = torch.from_numpy(np.asarray(read_image(path, mode)).astype(np.int16))
    for channel in levels.reshape(8, 8, -1).unbind(2):
        assert torch.equal(channel, expected)


def tiff(path: Path, values: bytes, bits: int, *, zero_is: int = 1, kind: int = 1) -> Path:
    """8 x 8 grey pixels as a TIFF that PIL cannot write: other bits, turned round, signed."""
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: zero_is, 273: 8, 277: 1, 278: 8, 339: kind}
    entries = [struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags.items()]
    table = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(values)) + values + table)
    return path


def packed(values: Any) -> bytes:
    """Numbers of 12 bits, two in three bytes."""
    return b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in values.reshape(-1, 2).tolist())


def test_tiff_says_how_many_bits_there_are_and_which_end_is_white(tmp_path: Path) -> None:
    path = tmp_path / "1.tif"
    for read in (
        lambda: read_image(tiff(path, packed(DEEP >> 4), 12), "L"),
        lambda: read_image(tiff(path, (65535 - DEEP).tobytes(), 16, zero_is=0), "L"),
    ):
        assert np.array_equal(np.asarray(read()), DEEP >> 8)
    for bits, signed in ((8, np.int8), (16, np.int16)):
        tiff(path, (DEEP >> 8).astype(signed).tobytes(), bits, kind=2)
        with pytest.raises(ValueError, match="signed pixels"):
            read_image(path, "L")


def test_16_bits_of_another_order_and_in_ones_own_hands() -> None:
    big = Image.frombytes("I;16B", (8, 8), DEEP.astype(">u2").tobytes())
    assert np.array_equal(np.asarray(to_mode(big, "L")), DEEP >> 8)
    grey = preprocess(1, 8)(Image.fromarray(DEEP))
    assert torch.equal(grey, torch.from_numpy((DEEP >> 8).astype(np.float32))[None] / 255)
    with pytest.raises(ValueError, match="32-bit"):
        preprocess(1, 8)(Image.new("I", (8, 8)))


def test_a_png_may_be_called_jpeg_and_the_orientation_is_left_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture((12, 8)).save(tmp_path / "1.jpg", "PNG", exif=exif)
    assert read_image(tmp_path / "1.jpg", "RGB").size == (12, 8)


@pytest.mark.skipif(sys.platform == "win32", reason="needs bytes as names")
def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    folder = imagenet(tmp_path / os.fsdecode(b"caf\xe9"), ("0", "1"), 1)
    broken = folder / "1" / os.fsdecode(b"\xff\n.png")
    broken.write_bytes(b"")
    data = load_data(folder, model=model(2))
    assert data.dataset[0][1] == 0
    with pytest.raises(FailureError, match=r"caf\\xe9.1.\\xff\\n\.png") as caught:
        data.dataset[2]
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)
