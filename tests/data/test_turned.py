"""Masks with a camera's flag of their own: read so where that fits, and told."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.data import MaskedImageFolder

INSIDE = np.zeros((20, 24), bool)
INSIDE[3:12, 4:10] = True


def write(root, mask, turn, *, picture_turn=1, stored_picture=INSIDE.shape):
    for part, shape in (("images", (*stored_picture, 3)), ("masks", None)):
        (root / part / "cat").mkdir(parents=True)
        pixels = np.full(shape, 90, np.uint8) if shape else mask.astype(np.uint8) * 255
        flag = Image.Exif()
        flag[0x112] = picture_turn if shape else turn
        Image.fromarray(pixels).save(root / part / "cat" / ("0.jpg" if shape else "0.png"), exif=flag, quality=95)


def read(root):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        data = MaskedImageFolder(root)
        inside = data[0][2][0].numpy() > 0.5
    return inside, " ".join(str(one.message) for one in heard)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_flag_that_turns_a_mask_away_from_its_picture_is_passed_over(tmp_path, turn):
    """Copied from a photograph with all else that is not pixels; the mask was refused."""
    write(tmp_path, INSIDE, turn)
    inside, heard = read(tmp_path)
    np.testing.assert_array_equal(inside, INSIDE)
    assert f"1 masks (0.png: EXIF orientation {turn}) say that they are turned otherwise than their pictures" in heard


def test_a_mask_drawn_upright_that_kept_the_flag_does_not_stand_on_its_head(tmp_path):
    """The picture's flag was applied to it a second time: 180 degrees in all, in silence."""
    write(tmp_path, INSIDE, 6, picture_turn=6, stored_picture=INSIDE.shape[::-1])
    np.testing.assert_array_equal(read(tmp_path)[0], INSIDE)


def test_a_mask_stored_as_its_picture_is_turns_with_it(tmp_path):
    write(tmp_path, np.rot90(INSIDE), 6, picture_turn=6, stored_picture=INSIDE.shape[::-1])
    inside, heard = read(tmp_path)
    np.testing.assert_array_equal(inside, INSIDE)
    assert "say that they are turned otherwise" not in heard


def test_what_nothing_shows_is_told(tmp_path):
    write(tmp_path, INSIDE, 3)
    inside, heard = read(tmp_path)
    np.testing.assert_array_equal(inside, np.rot90(INSIDE, 2))
    assert "EXIF orientation 3" in heard
    assert "where they do not lie on their objects, save them without the flag" in heard
