"""Compact heatmaps for reports, and their picture: red for, blue against, the foreground outlined."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.isnet.figures import heatmap_limits

__all__ = ["NEUTRAL", "heat_picture", "packed_heatmap", "packed_mask", "unpacked_heatmap"]

#: the byte that stands for zero; 255 is the most that speaks for the class, 1 the most against it
NEUTRAL = 128
_FOR, _AGAINST = np.array([190.0, 20.0, 30.0]), np.array([25.0, 70.0, 200.0])


def packed_heatmap(attribution: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A heatmap as uint8 (h, w) on a symmetric scale of its own.

    Args:
        attribution: (H, W), signed.
        size: (h, w) to which it is averaged.

    The scale's end is a high quantile (`torch_bgdebias.isnet.heatmap_limits`), so that a single bright pixel does
    not hide the rest.
    """
    values = _resized(attribution, size)
    limit = heatmap_limits(values[None, None, None])[0, 0]
    return (values / limit * 127).clamp(-127, 127).round().add(NEUTRAL).to(torch.uint8).numpy()


def unpacked_heatmap(packed: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Values in [-1, 1] of what `packed_heatmap` made."""
    values: NDArray[np.float32] = (packed.astype(np.float32) - NEUTRAL) / np.float32(127)
    return values


def packed_mask(mask: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask (H, W) in [0, 1] as uint8 (h, w), 255 = foreground."""
    return (_resized(mask, size).clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def heat_picture(
    picture: NDArray[np.uint8], heatmap: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The picture in pale grey under its heatmap, the foreground's edge drawn in black beside white.

    Args:
        picture: uint8 (h, w, 3).
        heatmap: uint8 (h, w) from `packed_heatmap`.
        mask: uint8 (h, w), 255 = foreground; ``None`` draws no edge.
    """
    values = unpacked_heatmap(heatmap)[..., None]
    grey = 0.45 * picture.mean(2, keepdims=True) + 132
    strength = np.abs(values) ** 0.75  # weak evidence should be seen, strong should not drown it
    blended = (1 - strength) * grey + strength * np.where(values >= 0, _FOR, _AGAINST)
    if mask is not None:
        inside = mask > 127
        inner, outer = inside & ~_eroded(inside), _eroded(~inside) ^ ~inside
        blended[outer] = 255.0
        blended[inner] = 0.0
    return np.ascontiguousarray(blended.clip(0, 255).round().astype(np.uint8))


def _eroded(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Without the pixels that have a neighbour outside; beyond the frame counts as inside."""
    padded = np.pad(inside, 1, constant_values=True)
    rows, columns = padded[:-2, 1:-1] & padded[2:, 1:-1], padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(inside & rows & columns)


def _resized(values: Tensor, size: tuple[int, int]) -> Tensor:
    plane = values.detach().float().cpu()[None, None]
    if plane.shape[2:] == size:
        return plane[0, 0]
    return F.interpolate(plane, size, mode="bilinear", antialias=True)[0, 0]
