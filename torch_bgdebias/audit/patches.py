"""Background patches compared with a fixed dictionary: a scene descriptor without trained weights.

Single-layer features of whitened patches tell kinds of pictures nearly as well as small networks (Coates, Lee and Ng,
2011). The dictionary's patches are drawn from pictures of overlapping discs, whose statistics are those of photographs
(dead leaves: Ruderman, 1997; Lee, Mumford and Huang, 2001), and not from the pictures that are inspected: what is drawn
from some of these is closer to them than to others, and if they come class by class, that tells the class.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

__all__ = ["PATCHES", "patch_features"]

#: entries of the dictionary
PATCHES = 160
_SIDE, _PATCH, _STRIDE = 64, 6, 2
_PICTURES, _DISCS, _DRAWN = 60, 400, 12_000
#: added to a patch's variance, of pixels in [0, 1], and to the variances that are whitened
_FLAT, _NOISE = 10 / 255**2, 0.1


class _Dictionary(NamedTuple):
    mean: Tensor
    whitening: Tensor
    entries: Tensor


def patch_features(image: Tensor, outside: Tensor) -> NDArray[np.float32]:
    """How near the background's patches come to each entry of the dictionary, on average, (B, `PATCHES`).

    A patch's nearness to an entry is how much nearer than the mean entry it is, or 0; NaN where the background shows no
    whole patch.

    Args:
        image: (B, 3, S, S) in [0, 1], S a multiple of 64.
        outside: (B, 1, S, S) bool, the background.
    """
    dictionary = _dictionary()
    small = F.avg_pool2d(image, image.shape[2] // _SIDE)
    visible = (F.avg_pool2d(outside.float(), outside.shape[2] // _SIDE) > 0.99).float()
    fully_visible = F.unfold(visible, _PATCH, stride=_STRIDE).amin(1, keepdim=True)  # (B, 1, L)
    patches = _normalised(F.unfold(small, _PATCH, stride=_STRIDE).transpose(1, 2)) - dictionary.mean
    white = patches @ dictionary.whitening
    products = white @ dictionary.entries.T
    squares = white.square().sum(2, keepdim=True) - 2 * products + dictionary.entries.square().sum(1)
    distance = squares.clamp(min=0).sqrt()
    nearness = (distance.mean(2, keepdim=True) - distance).clamp(min=0)
    total = fully_visible.sum(2)
    mean = (fully_visible @ nearness)[:, 0] / total.clamp(min=1)
    values: NDArray[np.float32] = torch.where(total > 0, mean.sqrt(), torch.nan).numpy()
    return values


@functools.cache
def _dictionary() -> _Dictionary:
    generator = torch.Generator().manual_seed(11)
    pictures = torch.stack([_dead_leaves(generator) for _ in range(_PICTURES)])
    patches = F.unfold(pictures, _PATCH, stride=_STRIDE).transpose(1, 2).flatten(0, 1)
    sampled = _normalised(patches[torch.randperm(len(patches), generator=generator)[:_DRAWN]])
    mean = sampled.mean(0)
    centred = sampled - mean
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    whitening = vectors @ torch.diag((values + _NOISE).rsqrt()) @ vectors.T
    white = centred @ whitening
    return _Dictionary(mean, whitening, white[:PATCHES])


def _normalised(patches: Tensor) -> Tensor:
    """Patches (..., D) without their brightness and contrast."""
    centred = patches - patches.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + _FLAT).sqrt()


def _dead_leaves(generator: torch.Generator) -> Tensor:
    """(3, 64, 64) in [0, 1]: discs of many sizes, the number of each falling with the cube of its radius."""
    places = torch.arange(_SIDE) + 0.5
    picture = torch.full((3, _SIDE, _SIDE), 0.5)
    low, high = 1.5, 32.0
    radii = (low**-2 - torch.rand(_DISCS, generator=generator) * (low**-2 - high**-2)).rsqrt()
    centres = torch.rand(_DISCS, 2, generator=generator) * _SIDE
    bright = torch.rand(_DISCS, 1, generator=generator)
    colours = (bright + 0.12 * torch.randn(_DISCS, 3, generator=generator)).clamp(
        0, 1
    )  # colours differ less than light
    for radius, (down, across), colour in zip(radii.tolist(), centres.tolist(), colours, strict=True):
        inside = (places[:, None] - down) ** 2 + (places - across) ** 2 < radius**2
        picture = torch.where(inside, colour[:, None, None], picture)
    return F.avg_pool2d(F.pad(picture[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0] * 0.5 + picture * 0.5
