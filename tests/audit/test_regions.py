"""The background's region hides the object's form."""

from __future__ import annotations

import numpy as np

from torch_bgdebias.audit.regions import _MARGIN, BOX_FACTS, RING, Box, box_facts, object_box, outside_of


def disc(side: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.where(y**2 + x**2 <= radius**2, 255, 0).astype(np.uint8)


def test_box_and_its_facts():
    mask = np.zeros((50, 100), np.uint8)
    mask[10:20, 30:80] = 255
    box = object_box(mask)
    assert box == Box(0.2, 0.4, 0.3, 0.8)
    facts = dict(zip(BOX_FACTS, box_facts(box), strict=True))
    np.testing.assert_allclose([facts["height"], facts["width"]], [0.2, 0.5])
    np.testing.assert_allclose([facts["centre, down"], facts["centre, across"]], [0.3, 0.55])
    np.testing.assert_allclose([facts[edge] for edge in ("top", "bottom", "left", "right")], box)
    np.testing.assert_allclose(np.exp([facts["area"], facts["aspect"]]), [0.1, 0.4])
    assert object_box(np.zeros((4, 4), np.uint8)) is None
    assert np.isnan(box_facts(None)).all()


def test_forms_of_one_box_leave_the_same_background():
    """A disc and a ring with the same box cannot be told by where the background is."""
    full, ring = disc(60, 15), disc(60, 15)
    ring[disc(60, 8) > 0] = 0
    outside = [outside_of(mask, object_box(mask), 128) for mask in (full, ring)]
    assert (outside[0] == outside[1]).all()
    assert not outside[0][64, 64]
    assert 0.6 < outside[0].mean() < 0.8


def test_the_box_is_left_out_with_a_margin_on_every_side():
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 30:70] = 255
    inside = ~outside_of(mask, object_box(mask), 1000)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    margin = round(1000 * _MARGIN)
    assert inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert np.abs([rows[0] - (400 - margin), rows[-1] + 1 - (600 + margin)]).max() <= 1
    assert np.abs([columns[0] - (300 - margin), columns[-1] + 1 - (700 + margin)]).max() <= 1
    assert margin > 5


def test_a_large_object_is_left_out_by_its_outline():
    mask = disc(64, 31.5)
    outside = outside_of(mask, object_box(mask), 128)
    assert 0.05 < outside.mean() < 0.25
    assert outside[0, 0]
    assert not outside[64, 64]


def test_without_masks_a_ring():
    outside = outside_of(None, None, 100)
    assert outside.sum() == 100**2 - (100 - 2 * round(100 * RING)) ** 2
    assert outside_of(np.zeros((5, 5), np.uint8), None, 10).all()
