"""Colours of 16 bits: right at 8 where white is 65535, else refused by name."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.files import UnreadableImageError, read_image, white_level


def deep_png(path, values):
    """A PNG of colours (H, W, 3) uint16, which PIL can read but not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


@pytest.fixture
def colours():
    return np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.uint16)


def test_full_colours_are_read_at_8_bits(tmp_path, colours):
    path = deep_png(tmp_path / "a.png", colours)
    expected = torch.from_numpy((colours >> 8).astype(np.uint8)).permute(2, 0, 1)
    assert torch.equal(read_image(path), expected)
    assert white_level([path]) == 65535
    assert torch.equal(read_image(path, white=65535), expected)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_colours_of_fewer_bits_are_refused(tmp_path, colours, bits):
    path = deep_png(tmp_path / "scenes/a.png", colours >> (16 - bits))
    with pytest.raises(UnreadableImageError, match=r"a.png: colours of 16 bits that stop at \d+ or below.*8 bits a ch"):
        read_image(path)
    with pytest.raises(UnreadableImageError, match="colours of 16 bits that stop at"):
        white_level([path])
    with pytest.raises(UnreadableImageError, match="colours of 16 bits that stop at"):
        BackgroundBank.from_folder(tmp_path, (4, 4))


def test_a_dark_picture_among_bright_ones_is_read(tmp_path, colours):
    paths = [deep_png(tmp_path / f"{i}.png", colours >> shift) for i, shift in enumerate((0, 4))]
    assert white_level(paths) == 65535
    dark = read_image(paths[1], white=white_level(paths))
    assert torch.equal(dark, torch.from_numpy((colours >> 12).astype(np.uint8)).permute(2, 0, 1))


def test_beside_grey_of_12_bits(tmp_path, colours):
    path = deep_png(tmp_path / "a.png", colours)
    with pytest.raises(UnreadableImageError, match="expected values up to 4095, .* got colours of 16 bits"):
        read_image(path, white=4095)


def test_a_folder_of_them_is_refused_when_it_is_opened(tmp_path, colours):
    deep_png(tmp_path / "images/cat/0.png", colours >> 4)
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 255
    (tmp_path / "masks/cat").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "masks/cat/0.png")
    with pytest.raises(UnreadableImageError, match="colours of 16 bits that stop at"):
        MaskedImageFolder(tmp_path)
