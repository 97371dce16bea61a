"""Rasterises outlines and run lengths; shared by the readers of annotation files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "AnnotatedPicture",
    "AnnotationError",
    "Flags",
    "Outline",
    "Shape",
    "drawn",
    "from_run_lengths",
    "picture_size",
    "run_lengths_of_plane",
]

Flags = NDArray[np.bool_]
#: of a picture: a size that a file merely says must not fill the memory
MOST_PIXELS = 2**27
#: (x, y) of each corner
Outline = tuple[tuple[float, float], ...]


class AnnotationError(ValueError):
    """An annotation file that cannot be read, or holds what is no mask. Names the file."""


@dataclass(frozen=True)
class Shape:
    """One annotated thing.

    Args:
        label: the object's category.
        polygons: outlines, each a list of (x, y) in pixels; their union is meant.
        runs: run lengths in columns, beginning with background, in place of polygons.
        crowd: a group that is not outlined one by one: neither object nor background.
        holes: outlines that are cut out of it.
        relative: whether x and y are shares of the picture's width and height.
        is_round: whether the outline is that of a circle or an ellipse, which may reach beyond the picture.
    """

    label: str
    polygons: tuple[Outline, ...] = ()
    runs: tuple[int, ...] | None = None
    crowd: bool = False
    holes: tuple[Outline, ...] = ()
    relative: bool = False
    is_round: bool = False


@dataclass(frozen=True)
class AnnotatedPicture:
    """What an annotation file says about one picture.

    Args:
        name: the picture's file name, with or without folders.
        size: (H, W) where the file says it.
        shapes: what is in it, later ones above earlier ones.
    """

    name: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]


def drawn(shapes: Sequence[Shape], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shapes as a label map (H, W): 1 object, 0 background, 255 void (a crowd that no object covers).

    Raises:
        ValueError: run lengths of another size, outlines of less than 3 points.
    """
    labels = np.zeros(size, np.uint8)
    for shape in sorted(shapes, key=lambda shape: not shape.crowd):
        inside = _of_polygons(shape, size) if shape.runs is None else from_run_lengths(shape.runs, size)
        labels[inside] = 255 if shape.crowd else 1
    return labels


def from_run_lengths(runs: Sequence[int], size: tuple[int, int]) -> Flags:
    """COCO's run lengths, counted down the columns and beginning with background, as (H, W).

    Raises:
        ValueError: they do not add up to the size.
    """
    height, width = size
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError(f"run lengths: expected a sum of {height} x {width} = {height * width}, got {sum(runs)}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, np.asarray(runs, np.int64)).reshape(width, height).T


def run_lengths_of_plane(inside: Flags) -> tuple[int, ...]:
    """The inverse of `from_run_lengths`."""
    flat = np.concatenate([[False], inside.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return tuple(int(count) for count in np.diff(np.concatenate([[0], edges, [inside.size]])))


def _of_polygons(shape: Shape, size: tuple[int, int]) -> Flags:
    """A pixel is inside where its middle is, by the even-odd rule within each outline."""
    inside = np.zeros(size, bool)
    for outline in shape.polygons:
        inside |= _of_outline(outline, shape, size)
    for outline in shape.holes:
        inside &= ~_of_outline(outline, shape, size)
    return inside


def picture_size(height: object, width: object) -> tuple[int, int]:
    """(H, W) as a file says it.

    Raises:
        AnnotationError: no whole numbers from 1 on, or more pixels than a picture that can be read has.
    """
    try:
        size = (int(height), int(width))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError) as error:
        raise AnnotationError(f"size: expected whole numbers, got {height!r} x {width!r}") from error
    if min(size) < 1 or size[0] * size[1] > MOST_PIXELS:
        raise AnnotationError(f"size: expected 1 to {MOST_PIXELS} pixels, got {size[0]} x {size[1]}")
    return size


def _of_outline(outline: Outline, shape: Shape, size: tuple[int, int]) -> Flags:
    if len(outline) < 3:
        raise ValueError(f"{shape.label}: expected outlines of at least 3 points, got {len(outline)}")
    if shape.relative:
        outline = tuple((x * size[1], y * size[0]) for x, y in outline)
    if not all(abs(value) <= 1e12 for point in outline for value in point):  # NaN compares false
        raise ValueError(f"{shape.label}: expected points near the picture, got {outline[:4]}")
    return _filled(outline, size)


def _filled(outline: Sequence[tuple[float, float]], size: tuple[int, int]) -> Flags:
    height, width = size
    middles = np.arange(height) + 0.5
    crossings = np.zeros((height, width + 1), np.int64)
    for (x0, y0), (x1, y1) in zip(outline, [*outline[1:], outline[0]], strict=True):
        rows = np.flatnonzero((middles >= min(y0, y1)) & (middles < max(y0, y1)))
        if len(rows):
            x = x0 + (middles[rows] - y0) * (x1 - x0) / (y1 - y0)
            # the first column whose middle lies to the right of the edge
            np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)), 1)
    inside: Flags = np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
    return inside
