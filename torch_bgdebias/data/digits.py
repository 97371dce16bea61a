"""Handwritten digits as masked foregrounds: scikit-learn's, MNIST-like files, and any data set with a dark ground."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from torch_bgdebias._optional import require
from torch_bgdebias.checks import check_option, check_size, describe
from torch_bgdebias.data.tensors import JointTransform, MaskedItem, MaskedTensors
from torch_bgdebias.subsets import length_of

__all__ = ["ThresholdMasked", "digits_with_masks", "mnist_with_masks", "read_idx"]

_IDX_TYPES: dict[int, np.dtype[Any]] = {
    code: np.dtype(name) for code, name in ((8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8"))
}

#: bytes of a file unpacked; MNIST's largest relative, EMNIST, has about 2**29
_LARGEST = 2**31


class ThresholdMasked(Dataset[MaskedItem]):
    """(image, label, mask) from a data set of (image, label) with a dark ground, such as MNIST.

    Args:
        dataset: items (image, label): a PIL image, a float tensor in [0, 1], or a uint8 tensor, (H, W) or (C, H, W);
            further entries of an item are dropped.
        threshold: a pixel is foreground when its brightest channel is above this, in [0, 1].
        transform: takes and returns (image, mask).
        channels: grey images are repeated to this many channels; ``None`` leaves them.

    Raises:
        ValueError: threshold outside [0, 1).
        TypeError: an item that holds no image (when it is read).
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        threshold: float = 0.0,
        *,
        transform: JointTransform | None = None,
        channels: int | None = 3,
    ) -> None:
        if not 0.0 <= threshold < 1.0:
            raise ValueError(f"threshold: expected a brightness in [0, 1), got {threshold!r}")
        self.dataset, self.threshold, self.transform, self.channels = dataset, threshold, transform, channels

    def __len__(self) -> int:
        return length_of(self.dataset)

    def __getitem__(self, index: int) -> MaskedItem:
        item = self.dataset[index]
        image = _as_image(item[0])
        mask = (image.amax(0, keepdim=True) > self.threshold).float()
        if self.channels is not None and image.shape[0] == 1:
            image = image.expand(self.channels, -1, -1).clone()
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, int(item[1]), mask


def digits_with_masks(
    size: int | tuple[int, int] = 32, *, colour: str = "white", margin: float = 0.1, seed: int = 0
) -> MaskedTensors:
    """The 1,797 real handwritten digits that come with scikit-learn, scaled up, with soft masks.

    The 8 x 8 grey values are interpolated and sharpened to strokes. A mask is a little wider than its stroke, so that a
    digit pasted onto a scene has a dark outline and can be read on light and dark ground alike.

    Args:
        size: (H, W) of the pictures, or one int for a square, at least 16.
        colour: ``"white"`` strokes, or ``"random"``: a bright colour of its own for each digit.
        margin: empty border as a share of the size.
        seed: of the random colours.

    Returns:
        ``MaskedTensors`` with images (1797, 3, H, W), the digit on black.

    Raises:
        ImportError: scikit-learn is not there (extra ``demo``).
        ValueError: a size below 16, an unknown colour, or a margin outside [0, 0.4].
    """
    height, width = check_size(size) or (0, 0)  # type: ignore[unreachable]  # None comes from code without types
    if min(height, width) < 16:
        raise ValueError(f"size: expected at least 16 x 16, got {size!r}")
    check_option(colour, ("white", "random"), name="colour")
    if not 0.0 <= margin <= 0.4:
        raise ValueError(f"margin: expected a share in [0, 0.4], got {margin!r}")
    raw = require("sklearn.datasets", purpose="digits_with_masks").load_digits()
    grey = torch.from_numpy(raw.images).float().unsqueeze(1).div_(16)
    border = (round(height * margin), round(width * margin))
    inner = (height - 2 * border[0], width - 2 * border[1])
    large = F.interpolate(F.pad(grey, (1, 1, 1, 1)), inner, mode="bicubic")
    large = F.pad(large, (border[1], border[1], border[0], border[0]))
    stroke = ((large - 0.4) * 4 + 0.5).clamp(0, 1)
    mask = ((large - 0.18) * 6 + 0.5).clamp(0, 1) * (large > 0.1)
    tint = torch.ones(len(grey), 3, 1, 1)
    if colour == "random":
        tint = torch.rand(tint.shape, generator=torch.Generator().manual_seed(seed))
        tint = 0.25 + 0.75 * tint / tint.amax(1, keepdim=True)
    images = (stroke * tint).mul(255).round().to(torch.uint8)
    return MaskedTensors(images, torch.from_numpy(raw.target).long(), mask.mul(255).round().to(torch.uint8))


def mnist_with_masks(
    root: str | Path, *, train: bool = False, size: int | tuple[int, int] | None = None, threshold: float = 0.0
) -> MaskedTensors:
    """MNIST, Fashion-MNIST or another data set in the idx format; strokes (pixel > threshold) are the foreground.

    Args:
        root: folder (searched with its subfolders) of ``train-`` or ``t10k-images-idx3-ubyte`` and
            ``-labels-idx1-ubyte``, packed (``.gz``) or not.
        train: the training part, else the test part.
        size: (H, W) to resize images and masks to.
        threshold: in [0, 1], see ``ThresholdMasked``.

    Raises:
        FileNotFoundError: a file is not there; names it.
        ValueError: a file that is not what its name says.
    """
    part = "train" if train else "t10k"
    images = torch.from_numpy(read_idx(_find_file(Path(root), f"{part}-images-idx3-ubyte"))).unsqueeze(1)
    labels = torch.from_numpy(read_idx(_find_file(Path(root), f"{part}-labels-idx1-ubyte"))).long()
    if images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f"{root}: expected images (N, H, W) and labels (N,), got {images[:, 0].shape}, {labels.shape}")
    masks = (images.float() / 255 > threshold).to(torch.uint8) * 255
    target = check_size(size)
    if target is not None and target != tuple(images.shape[2:]):
        images, masks = (_resized(tensor, target) for tensor in (images, masks))
    return MaskedTensors(images.expand(-1, 3, -1, -1).contiguous(), labels, masks)


def read_idx(path: str | Path) -> np.ndarray[Any, Any]:
    """Read an idx file (MNIST's format), gzipped or not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an idx file, or truncated; names the file.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            data = b"".join(_file_chunks(file))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"truncated or broken idx file {path}: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"not an idx file: {path} starts with {data[:4]!r}")
    kind, start = _IDX_TYPES[data[2]], 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape) * kind.itemsize:
        raise ValueError(f"truncated or broken idx file {path}: expected {shape}, got {len(data) - start} bytes")
    values = np.frombuffer(data, kind, offset=start)
    native: np.ndarray[Any, Any] = values.reshape(shape).astype(values.dtype.newbyteorder("="))
    return native


def _file_chunks(file: Any) -> Iterator[bytes]:
    """The file's header and what the shape in it says, and a byte more where there is more."""
    yield (start := file.read(4))
    if len(start) < 4:
        return
    yield (sides := file.read(4 * start[3]))
    if len(sides) < 4 * start[3]:
        return
    item = _IDX_TYPES[start[2]].itemsize if start[2] in _IDX_TYPES else 1
    remaining = math.prod(struct.unpack(f">{start[3]}I", sides)) * item + 1
    if remaining > _LARGEST:
        raise EOFError(f"its shape says {remaining - 1} bytes, expected at most {_LARGEST}")
    while remaining > 0 and (piece := file.read(min(remaining, 2**20))):
        remaining -= len(piece)
        yield piece


def _find_file(root: Path, name: str) -> Path:
    for candidate in (name, f"{name}.gz"):
        paths = sorted(root.rglob(candidate))
        if paths:
            return paths[0]
    raise FileNotFoundError(f"{root}: expected {name} or {name}.gz in it or its subfolders")


def _resized(tensor: Tensor, size: tuple[int, int]) -> Tensor:
    large = F.interpolate(tensor.float(), size, mode="bilinear", antialias=True)
    return large.round_().clamp_(0, 255).to(torch.uint8)


def _as_image(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        image = value
    else:
        if not hasattr(value, "getbands"):  # what only PIL images have
            raise TypeError(
                f"dataset: expected items (image, label) with a PIL image or a tensor, got {describe(value)}"
            )
        image = torch.from_numpy(np.array(value))
        image = image.permute(2, 0, 1) if image.ndim == 3 else image
    if image.dtype in (torch.uint8, torch.bool):
        image = image.float() / (255 if image.dtype == torch.uint8 else 1)
    if image.ndim == 2:
        image = image.unsqueeze(0)
    if image.ndim != 3 or not image.is_floating_point():
        raise TypeError(f"dataset: expected images (C, H, W), float in [0, 1] or uint8, got {describe(image)}")
    return image
