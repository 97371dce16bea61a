"""Detects masks that hold outlines only, whose inside would count as background."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["enclosed_pixels", "warn_of_outlines"]

#: cells along a side within which the border's background is followed
_CELLS = 96
#: rounds of that; windings of more turns are taken for enclosed
_ROUNDS = 4 * _CELLS
#: enclosed background, as a share of the object, from which a mask looks like an outline, and the share of such masks
_HOLLOW, _MANY = 1.5, 0.5


def enclosed_pixels(inside: NDArray[np.bool_]) -> float:
    """How many background pixels an object encloses, to about one cell in 96 along a side.

    Args:
        inside: (H, W), where the object is.
    """
    height, width = inside.shape
    side = -(-max(height, width) // _CELLS)
    padded = np.zeros((-(-height // side) * side, -(-width // side) * side), bool)
    padded[:height, :width] = inside
    cells = padded.reshape(padded.shape[0] // side, side, -1, side).any((1, 3))
    free = np.pad(~cells, 1, constant_values=True)  # a ring of background around it
    outside = np.zeros_like(free)
    outside[0] = outside[-1] = outside[:, 0] = outside[:, -1] = True
    for _ in range(_ROUNDS):
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= free
        if np.array_equal(grown, outside):
            break
        outside = grown
    return float((free & ~outside).sum() * side**2)


def warn_of_outlines(objects: Sequence[NDArray[np.bool_]], where: str) -> None:
    """Say so where most of a folder's masks are outlines.

    Args:
        objects: (H, W) each, where the object is.
        where: which masks, for the warning.
    """
    areas = [(enclosed_pixels(inside), int(inside.sum())) for inside in objects if inside.any()]
    hollow = sum(hole > _HOLLOW * area for hole, area in areas)
    if areas and hollow >= _MANY * len(areas):
        times = float(np.median([hole / area for hole, area in areas]))
        warnings.warn(
            f"{where}): {hollow} of {len(areas)} are outlines? What they enclose is {times:.2g} times as large as they "
            "are (median) and counts as background; fill them if it is object",
            stacklevel=2,
        )
