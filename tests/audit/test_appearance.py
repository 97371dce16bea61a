"""Features see the background alone, and see what they are called after."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_bgdebias.audit.appearance import CORNERS, GRID, SIDE, _cells, appearance, corner_facts


@pytest.fixture
def scene():
    drawn = torch.Generator().manual_seed(0)
    image = torch.rand(3, 3, SIDE, SIDE, generator=drawn)
    outside = torch.ones(3, 1, SIDE, SIDE, dtype=torch.bool)
    outside[:, :, 40:90, 30:100] = False
    return image, outside


def test_what_is_inside_does_not_matter(scene):
    """Texture looks at neighbours: two pixels beside the object may; everything else is equal to the last bit."""
    image, outside = scene
    other = torch.where(outside, image, 1 - image)
    before, after = appearance(image, outside), appearance(other, outside)
    for view in ("colours", "light", "layout", "border"):
        np.testing.assert_array_equal(before[view], after[view])
    for view in ("texture", "sharpness", "places"):
        np.testing.assert_allclose(before[view], after[view], atol=0.1)


def test_colours_are_shares(scene):
    colours = appearance(*scene)["colours"]
    np.testing.assert_allclose(np.square(colours).sum(1), 3, rtol=1e-5)  # three histograms of square roots


def test_light_is_brightness(scene):
    image, outside = scene
    light = appearance(torch.stack([image[0] * 0.5, image[0]]), outside[:2])["light"]
    np.testing.assert_allclose(light[0], light[1] / 2, rtol=1e-4)


def test_blur_lowers_sharpness(scene):
    image, outside = scene
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(image, (2, 2, 2, 2), mode="reflect"), 5, 1)
    before, after = appearance(image, outside)["sharpness"], appearance(blurred, outside)["sharpness"]
    assert (after[:, 0] < before[:, 0] - 1).all()


def test_a_place_is_where_it_is(scene):
    image, outside = scene
    cell = SIDE // GRID
    marked = image.clone()
    marked[:, :, 2:8, 2:8] = 3.0
    change = np.abs(appearance(marked, outside)["places"] - appearance(image, outside)["places"])
    change = np.nan_to_num(change.reshape(3, GRID * GRID, 7)).max((0, 2))
    assert change.argmax() == 0
    assert change[2:].max() == 0
    assert cell == 10
    hidden = np.isnan(appearance(image, outside)["places"].reshape(3, GRID, GRID, 7)).all((0, 3))
    assert hidden[5:8, 4:8].all()
    assert not hidden[:3].any()


def test_corners_at_the_pictures_own_size():
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[-8:, -8:] = 255
    facts, tiles = corner_facts(picture, None)
    facts = np.array(facts).reshape(len(CORNERS), 4, 10)
    np.testing.assert_allclose(facts[:, 3, 0], [1, 0.25])
    assert not facts[:, :3].any()
    assert np.array(tiles).reshape(2, 4, 16)[0, 3].tolist() == [1] * 16
    hidden = np.zeros((200, 300), bool)
    hidden[:4, :4] = True
    assert np.isnan(np.array(corner_facts(picture, hidden)[0]).reshape(2, 4, 10)[:, 0]).all()
    assert np.isnan(corner_facts(picture[:6, :6], None)[0]).all()


def test_cells_are_a_row_a_picture():
    values = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    weight = torch.ones(2, 1, 4, 4)
    weight[0, :, :2, :2] = 0
    cells = _cells(values, weight, 2)
    assert cells.shape == (2, 12)
    assert torch.isnan(cells[0, ::4]).all()
    expected = torch.nn.functional.avg_pool2d(values[1:], 2).flatten(1)
    torch.testing.assert_close(cells[1:], expected)
