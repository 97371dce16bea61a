"""Properties of images and masks by themselves: where objects lie, mask opacity, duplicate pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from torch_bgdebias.compositing import FOREGROUND_THRESHOLD

__all__ = ["Twins", "edge_fits", "object_shares", "picture_hashes"]

#: of a side so many rows and columns tell pictures from each other
_LOOKED_AT = 64
#: and so many show where edges are
_OUTLINED_AT = 64
#: share of an outline that must lie apart from the other one for them to be compared
_APART = 0.25
#: spreads small numbers over 64 bits
_ODD = np.uint64(0x9E3779B97F4A7C15)


def object_shares(mask: Tensor, image: Tensor | None = None) -> NDArray[np.float64]:
    """(B, 4) share of the picture that is object, share of its outermost pixels, the mask's largest value, its fit.

    The fit is that of `edge_fits`; NaN without ``image``.
    """
    inside = (mask[:, 0] > FOREGROUND_THRESHOLD).float()
    sides = [inside.select(axis, end) for axis in range(1, inside.ndim) for end in (0, -1)]
    edge = torch.cat([side.flatten(1) for side in sides], 1).mean(1)
    share = inside.mean(tuple(range(1, inside.ndim)))
    largest = mask.flatten(1).amax(1).float()
    fits = torch.full_like(share, math.nan) if image is None else edge_fits(image, mask)
    shares: NDArray[np.float64] = torch.stack([share, edge, largest, fits], 1).cpu().numpy().astype(np.float64)
    return shares


def edge_fits(image: Tensor, mask: Tensor) -> Tensor:
    """(B,) how much stronger a picture's edges are where its own mask's are than where another image's mask has them.

    Outlines are compared where they lie apart; NaN where they hardly do (frames of a video, objects that are all taken
    in the middle), without edges of both masks, of masks that are boxes, which lie around objects, and of volumes.

    Args:
        image: (B, C, H, W) in any units.
        mask: (B, 1, H, W).
    """
    if image.ndim != 4:
        return torch.full((len(image),), math.nan, device=image.device)
    steps = [slice(None, None, max(1, side // _OUTLINED_AT)) for side in image.shape[-2:]]
    pixels, inside = (x.detach()[..., steps[0], steps[1]].float() for x in (image, mask))
    strength = _around(_changes(pixels))  # which forgives outlines that lie two pixels off
    outline = (_changes((inside > 0.5).float()) > 0).float()
    other = outline.roll(len(outline) // 2, 0)  # of no neighbour, whose mask may be there by a name's shift
    own_fit, other_fit = (_mean_apart(strength, *pair) for pair in ((outline, other), (other, outline)))
    return torch.where(_are_boxes(inside[:, 0] > 0.5), math.nan, own_fit - other_fit)


def _mean_apart(strength: Tensor, outline: Tensor, other: Tensor) -> Tensor:
    """(B,) mean strength on an outline where it lies apart from another one; NaN where it hardly does."""
    apart = outline * (1 - _around(other))
    n_apart, n_all = apart.sum((1, 2, 3)), outline.sum((1, 2, 3))
    return torch.where(n_apart > _APART * n_all, (strength * apart).sum((1, 2, 3)) / n_apart, math.nan)


def _are_boxes(inside: Tensor) -> Tensor:
    """(B,) whether an object (B, H, W) fills all rows and columns that it has a pixel in."""
    return (inside == (inside.any(1, keepdim=True) & inside.any(2, keepdim=True))).flatten(1).all(1)


def _around(values: Tensor) -> Tensor:
    """The largest value up to two pixels away."""
    return max_pool2d(values, 5, 1, 2)


def _changes(pixels: Tensor) -> Tensor:
    """(B, 1, H, W) differences to the pixels above and to the left, summed over them, mean of the channels."""
    across = pad((pixels[..., 1:] - pixels[..., :-1]).abs().mean(1, keepdim=True), (1, 0))
    return across + pad((pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean(1, keepdim=True), (0, 0, 1, 0))


def picture_hashes(image: Tensor) -> NDArray[np.uint64]:
    """(B,) hashes of the pictures alone, the same for the same picture under any label and mask."""
    steps = [slice(None, None, max(1, side // _LOOKED_AT)) for side in image.shape[-2:]]
    sampled = image.detach()[..., steps[0], steps[1]].float().flatten(1).cpu().contiguous().numpy()
    digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in sampled]
    return np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)


class Twins(NamedTuple):
    """Hashes of N images in any order, from which pictures that occur more than once are found.

    Attributes:
        pictures: (N,) hashes of the pictures alone (`picture_hashes`).
        labels: (N,) their labels.
        masks: (N,) hashes of the masks alone.
    """

    pictures: NDArray[np.uint64] = np.zeros(0, np.uint64)
    labels: NDArray[np.int64] = np.zeros(0, np.int64)
    masks: NDArray[np.uint64] = np.zeros(0, np.uint64)

    @classmethod
    def of(cls, image: Tensor, label: Tensor, mask: Tensor) -> Twins:
        """Those of a batch."""
        return cls(picture_hashes(image), label.cpu().numpy(), picture_hashes(mask))

    @classmethod
    def joined(cls, parts: Sequence[Twins]) -> Twins:
        """Several batches or processes as one."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True))) if parts else cls()

    def under_two_labels(self) -> int:
        """How many images show a picture that also occurs with another label."""
        return _count_with_other_value(self.pictures, self.labels)

    def under_two_masks(self) -> int:
        """How many images show a picture that also occurs with the same label and another mask."""
        return _count_with_other_value(self.pictures ^ (self.labels.astype(np.uint64) * _ODD), self.masks)


def _count_with_other_value(keys: NDArray[np.uint64], values: NDArray[Any]) -> int:
    """The number of images that share their key (N,) with one that has another value (N,)."""
    pairs = np.unique(np.stack([keys, values.astype(np.uint64)], 1), axis=0)
    repeated, n_values = np.unique(pairs[:, 0], return_counts=True)
    return int(np.isin(keys, repeated[n_values > 1]).sum())
