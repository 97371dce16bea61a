"""Outlines and run lengths as pixels: those of pycocotools where pip has it."""

from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.masks.formats.outlines import Shape, drawn, from_run_lengths
from torch_bgdebias.masks.formats.run_lengths import run_lengths_of

SIZE = (40, 50)


SQUARE = ((10.0, 5.0), (30.0, 5.0), (30.0, 25.0), (10.0, 25.0))


INSIDE = np.zeros(SIZE, bool)
INSIDE[5:25, 10:30] = True


def blob(seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    top, left, tall, wide = rng.uniform(15, 25), rng.uniform(15, 35), rng.uniform(4, 12), rng.uniform(4, 12)
    return ((y - top) / tall) ** 2 + ((x - left) / wide) ** 2 <= 1


def test_an_outline_between_pixels_is_exact():
    np.testing.assert_array_equal(drawn([Shape("x", (SQUARE,))], SIZE), INSIDE)


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_pycocotools(seed):
    coder = pytest.importorskip("pycocotools.mask")
    inside = blob(seed)
    compressed = coder.encode(np.asfortranarray(inside.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(from_run_lengths(run_lengths_of(compressed), SIZE), inside)


@pytest.mark.parametrize("seed", range(20))
def test_outlines_are_close_to_those_of_pycocotools(seed):
    """Which takes pixels that an outline touches by less than half, so that they differ by part of the edge."""
    coder = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    turns = np.sort(rng.uniform(0, 2 * np.pi, 9))
    points = [(25 + 15 * np.cos(t) * r, 20 + 14 * np.sin(t) * r) for t, r in zip(turns, rng.uniform(0.6, 1, 9))]  # noqa: B905
    theirs = coder.decode(coder.merge(coder.frPyObjects([[c for point in points for c in point]], *SIZE))) > 0
    ours = drawn([Shape("x", (tuple(points),))], SIZE) > 0
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.9
    assert abs(int(ours.sum()) - int(theirs.sum())) < 0.1 * theirs.sum()
