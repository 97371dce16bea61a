"""Threshold masks and MNIST's files."""

from __future__ import annotations

import gzip
import resource
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from torch_bgdebias.data import ThresholdMasked, digits_with_masks, mnist_with_masks, read_idx


def write_idx(path, values, packed=False):
    codes = {"uint8": 8, "int32": 12, "float32": 13}
    head = struct.pack(f">HBB{values.ndim}I", 0, codes[values.dtype.name], values.ndim, *values.shape)
    data = head + values.astype(values.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 10, 10), dtype=np.uint8)
    images[:, :3] = 0
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images, packed=True)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(7, dtype=np.uint8))
    return tmp_path, images


def test_mnist_files(mnist):
    root, images = mnist
    data = mnist_with_masks(root)
    assert torch.equal(data.images, torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(data.masks > 0, torch.from_numpy(images)[:, None] > 0)
    assert data.labels.tolist() == list(range(7))
    larger = mnist_with_masks(root, size=20, threshold=0.5)
    assert larger.images.shape == (7, 3, 20, 20)
    assert larger.masks[:, :, :5].max() == 0
    with pytest.raises(FileNotFoundError, match=r"expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz"):
        mnist_with_masks(root, train=True)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path, dtype, packed):
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = read_idx(write_idx(tmp_path / "x", values, packed))
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_broken_idx_files_are_named(tmp_path):
    good = write_idx(tmp_path / "x.gz", np.zeros((5, 5), np.uint8), packed=True).read_bytes()
    (tmp_path / "cut.gz").write_bytes(good[:-9])
    (tmp_path / "cut").write_bytes(gzip.decompress(good)[:-3])
    (tmp_path / "text").write_text("no idx file")
    for name, text in (("cut.gz", "truncated or broken"), ("cut", r"truncated.*got 22"), ("text", "not an idx file")):
        with pytest.raises(ValueError, match=text):
            read_idx(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "absent")


def test_counts_that_differ(mnist):
    root, _ = mnist
    write_idx(root / "t10k-labels-idx1-ubyte", np.arange(6, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"expected images \(N, H, W\) and labels \(N,\)"):
        mnist_with_masks(root)


def grey(kind):
    values = np.array([[0, 10, 200], [0, 0, 255]], np.uint8)
    if kind == "pil":
        return Image.fromarray(values)
    if kind == "rgb":
        return Image.fromarray(np.stack([values, values // 2, values * 0], -1))
    tensor = torch.from_numpy(values)
    return tensor if kind == "byte" else tensor[None].float() / 255


@pytest.mark.parametrize("kind", ["pil", "rgb", "byte", "float"])
def test_threshold_masks(kind):
    data = ThresholdMasked([(grey(kind), 3, "more")])
    image, label, cover = data[0]
    assert len(data) == 1
    assert image.shape == (3, 2, 3)
    assert label == 3
    assert cover.tolist() == [[[0, 1, 1], [0, 0, 1]]]
    torch.testing.assert_close(image[0], torch.tensor([[0, 10, 200], [0, 0, 255]]) / 255)
    assert ThresholdMasked([(grey(kind), 3)], 0.5)[0][2].sum() == 2


def test_threshold_options():
    data = ThresholdMasked([(grey("pil"), 0)], channels=None, transform=lambda image, cover: (image * 0, cover * 0))
    assert data[0][0].shape == (1, 2, 3)
    assert data[0][2].sum() == 0
    with pytest.raises(ValueError, match=r"threshold: expected a brightness in \[0, 1\), got 128"):
        ThresholdMasked([], 128)
    with pytest.raises(
        TypeError, match=r"dataset: expected items \(image, label\) with a PIL image or a tensor, got str"
    ):
        ThresholdMasked([("x.png", 0)])[0]
    with pytest.raises(TypeError, match=r"dataset: expected images \(C, H, W\), float in \[0, 1\] or uint8, got int64"):
        ThresholdMasked([(torch.zeros(2, 2).long(), 0)])[0]


def test_real_mnist(shared_data):
    data = mnist_with_masks(shared_data("mnist"), size=32)
    assert data.images.shape == (10000, 3, 32, 32)
    assert data.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_digits():
    digits = digits_with_masks(32)
    assert digits.images.shape == (1797, 3, 32, 32)
    assert digits.masks.shape == (1797, 1, 32, 32)
    assert digits.labels.bincount().min() > 170
    cover = digits.masks.float().mean((1, 2, 3)) / 255
    assert cover.min() > 0.05
    assert cover.max() < 0.6
    assert ((digits.masks > 0) & (digits.masks < 255)).any(), "soft edges"
    outside = digits.images * (digits.masks == 0)
    assert outside.max() == 0, "nothing of the stroke lies outside of its mask"
    border = torch.cat([digits.masks[:, :, :2].flatten(), digits.masks[..., :2].flatten()])
    assert border.max() == 0


def test_digits_in_colour_and_size():
    colour = digits_with_masks((24, 40), colour="random", seed=3)
    assert colour.images.shape == (1797, 3, 24, 40)
    assert torch.equal(colour.images, digits_with_masks((24, 40), colour="random", seed=3).images)
    assert not torch.equal(colour.images[:, 0], colour.images[:, 1])
    assert colour.images.flatten(1).amax(1).min() > 250, "bright enough to be read"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"size": 8}, r"size: expected at least 16 x 16, got 8"),
        ({"colour": "blue"}, r"colour: expected one of 'white', 'random', got 'blue'"),
        ({"margin": 0.5}, r"margin: expected a share in \[0, 0.4\], got 0.5"),
    ],
)
def test_bad_digits(arguments, text):
    with pytest.raises(ValueError, match=text):
        digits_with_masks(**arguments)


def test_broken_and_bombed_files_are_named(tmp_path):
    path = write_idx(tmp_path / "a.gz", np.arange(200, dtype=np.uint8), packed=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + b"\xff\xff" + whole[22:])
    with pytest.raises(ValueError, match=r"broken idx file .*a\.gz"):
        read_idx(path)
    head = struct.pack(">HBB2I", 0, 8, 2, 10, 20)
    path.write_bytes(gzip.compress(head + bytes(50_000_000)))  # 200 bytes are promised
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"a\.gz: expected \(10, 20\), got 201 bytes"):
        read_idx(path)
    path.write_bytes(gzip.compress(struct.pack(">HBB2I", 0, 8, 2, 2**31, 2**31) + bytes(50_000_000)))
    with pytest.raises(ValueError, match=r"a\.gz: its shape says \d+ bytes, expected at most 2147483648"):
        read_idx(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**15, "more than 32 MiB"
    path.write_bytes(gzip.compress(struct.pack(">HBB1I", 0, 12, 1, 5) + bytes(18)))
    with pytest.raises(ValueError, match=r"a\.gz: expected \(5,\), got 18 bytes"):
        read_idx(path)
