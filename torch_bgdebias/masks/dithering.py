"""Detects masks that were dithered: grey turned into a pattern of single black and white pixels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["scattered_pixels", "warn_of_dithering"]

#: share of the objects' pixels from which single ones among them make a pattern
_MANY = 0.05


def scattered_pixels(inside: NDArray[np.bool_]) -> int:
    """How many pixels differ from all four neighbours and stand in no thin line: alone, or in a pattern of two steps.

    Args:
        inside: (H, W), where the object is.
    """
    if min(inside.shape) < 5:
        return 0
    height, width = inside.shape
    middle = inside[2:-2, 2:-2]

    def at(dy: int, dx: int) -> NDArray[np.bool_]:
        return np.equal(inside[2 + dy : height - 2 + dy, 2 + dx : width - 2 + dx], middle, dtype=np.bool_)

    beside = at(0, 1) | at(0, -1) | at(1, 0) | at(-1, 0)
    across = at(1, 1) | at(1, -1) | at(-1, 1) | at(-1, -1)
    two_steps = at(0, 2) | at(0, -2) | at(2, 0) | at(-2, 0)
    return int((~beside & (~across | two_steps)).sum())


def warn_of_dithering(objects: Sequence[NDArray[np.bool_]], where: str) -> None:
    """Say so where a folder's masks look dithered.

    Args:
        objects: (H, W) each, where the object is.
        where: which masks, for the warning.
    """
    n_inside = sum(int(inside.sum()) for inside in objects)
    n_scattered = sum(map(scattered_pixels, objects))
    if n_inside and n_scattered >= _MANY * n_inside:
        warnings.warn(
            f"{where}): {n_scattered / n_inside:.0%} as many single pixels as pixels of objects: dithered, as Pillow's "
            'convert("1") does with grey? Such a mask shows the object through holes; write them anew, as grey, or by '
            'picture.convert("L").point(lambda value: 255 * (value > 127)).convert("1"), value > 0 for label numbers',
            stacklevel=2,
        )
