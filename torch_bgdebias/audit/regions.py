"""Which pixels count as background: outside the object's box, or a border ring where there is no mask.

The object is excluded by its box and not by its outline: a hole in its shape would itself predict the class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["BOX_FACTS", "RING", "Box", "box_facts", "object_box", "outside_of"]

#: width of the ring that stands for the background where there is no mask, as a share of the picture's side
RING = 0.1
#: a box that leaves less than this share of the picture hides the background: the outline takes its place
_LEAST_OUTSIDE = 0.05
_MARGIN = 0.02

BOX_FACTS = ("height", "width", "centre, down", "centre, across", "area", "aspect", "top", "bottom", "left", "right")


class Box(NamedTuple):
    """The object's bounding box as shares of the picture's height and width."""

    top: float
    bottom: float
    left: float
    right: float


def object_box(mask: NDArray[np.uint8]) -> Box | None:
    """The box of what is object in a mask (H, W), 255 = object; ``None`` where nothing is."""
    inside = mask > 127
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(rows):
        return None
    height, width = mask.shape
    return Box(rows[0] / height, (rows[-1] + 1) / height, columns[0] / width, (columns[-1] + 1) / width)


def outside_of(mask: NDArray[np.uint8] | None, box: Box | None, side: int) -> NDArray[np.bool_]:
    """Where the background is, (side, side), at the picture's working size.

    Args:
        mask: (H, W), 255 = object; ``None`` without one: the ring along the border.
        box: the object's, ``None`` where the mask is empty: all of the picture.
        side: of the square that the picture is resized to.
    """
    outside = np.ones((side, side), bool)
    if mask is None:
        rim = max(1, round(RING * side))
        outside[rim:-rim, rim:-rim] = False
        return outside
    if box is None:
        return outside
    top, left = (int(np.floor((edge - _MARGIN) * side)) for edge in (box.top, box.left))
    bottom, right = (int(np.ceil((edge + _MARGIN) * side)) for edge in (box.bottom, box.right))
    outside[max(top, 0) : bottom, max(left, 0) : right] = False
    if outside.mean() >= _LEAST_OUTSIDE:
        return outside
    return ~_grown(_resized(mask > 127, side), 3)


def box_facts(box: Box | None) -> list[float]:
    """What `BOX_FACTS` names, area and aspect (height by width) as logarithms; NaN where there is no box."""
    if box is None:
        return [np.nan] * len(BOX_FACTS)
    height, width = box.bottom - box.top, box.right - box.left
    down, across = (box.top + box.bottom) / 2, (box.left + box.right) / 2
    logs = [np.log(height * width), np.log(height / width)]
    return [height, width, down, across, *logs, box.top, box.bottom, box.left, box.right]


def _resized(inside: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    rows, columns = (np.minimum((np.arange(side) + 0.5) * n / side, n - 1).astype(int) for n in inside.shape)
    return inside[np.ix_(rows, columns)]


def _grown(inside: NDArray[np.bool_], steps: int) -> NDArray[np.bool_]:
    for _ in range(steps):
        padded = np.pad(inside, 1)
        inside = inside | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return inside
