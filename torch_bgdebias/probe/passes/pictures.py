"""Properties of images and masks by themselves: where objects lie, mask opacity, duplicate pictures."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.compositing import FOREGROUND_THRESHOLD

__all__ = ["object_shares", "picture_marks", "under_two_labels"]

#: of a side so many rows and columns tell pictures from each other
_LOOKED_AT = 64


def object_shares(mask: Tensor) -> NDArray[np.float64]:
    """(B, 3) share of the picture that is object, share of its outermost pixels, and the mask's largest value."""
    inside = (mask[:, 0] > FOREGROUND_THRESHOLD).float()
    sides = [inside.select(axis, end) for axis in range(1, inside.ndim) for end in (0, -1)]
    edge = torch.cat([side.flatten(1) for side in sides], 1).mean(1)
    whole = inside.mean(tuple(range(1, inside.ndim)))
    largest = mask.flatten(1).amax(1).float()
    shares: NDArray[np.float64] = torch.stack([whole, edge, largest], 1).cpu().numpy().astype(np.float64)
    return shares


def picture_marks(image: Tensor) -> NDArray[np.uint64]:
    """(B,) hashes of the pictures alone, the same for the same picture under any label and mask."""
    steps = [slice(None, None, max(1, side // _LOOKED_AT)) for side in image.shape[-2:]]
    some = image.detach()[..., steps[0], steps[1]].float().flatten(1).cpu().contiguous().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in some]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


def under_two_labels(marks: NDArray[np.uint64], labels: NDArray[np.int64]) -> int:
    """How many images show a picture that is there with another label too."""
    pairs = np.unique(np.stack([marks, labels.astype(np.uint64)], 1), axis=0)
    pictures, times = np.unique(pairs[:, 0], return_counts=True)
    return int(np.isin(marks, pictures[times > 1]).sum())
