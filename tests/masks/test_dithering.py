"""Dithered masks are noticed, and nothing else that is fine."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

from torch_bgdebias.masks.dithering import scattered_pixels, warn_of_dithering


def ellipse(grey=255, soft=0.0):
    y, x = np.mgrid[:120, :160]
    distance = np.hypot((y - 60) / 40, (x - 80) / 55)
    edge = np.clip((1 - distance) / soft + 0.5, 0, 1) if soft else distance < 1
    return (grey * edge).astype(np.uint8)


def dithered(values):
    return np.asarray(Image.fromarray(values).convert("1"))


@pytest.mark.parametrize("grey", [8, 30, 64, 100, 128, 160, 200, 235])
def test_grey_that_pillow_dithered_is_told(grey):
    with pytest.warns(UserWarning, match=r"^masks\): \d+% as many single pixels .*: dithered, .*convert\(\"1\"\)"):
        warn_of_dithering([dithered(ellipse(grey))] * 3, "masks")


def test_wide_soft_edges_that_were_dithered_are_told():
    with pytest.warns(UserWarning, match="dithered"):
        warn_of_dithering([dithered(ellipse(255, 1.0))], "masks")


def thin_lines():
    lines = np.zeros((60, 60), bool)
    lines[np.arange(60), np.arange(60)] = lines[20, :] = lines[:, 30] = True
    lines[np.arange(50), 59 - np.arange(50)] = True
    return lines


@pytest.mark.parametrize(
    "inside",
    [
        ellipse() > 0,
        dithered(ellipse(255)),
        ellipse(255, 0.2) > 127,
        thin_lines(),
        np.zeros((20, 20), bool),
        np.ones((3, 3), bool),
        (ellipse() > 0) ^ (np.random.default_rng(0).random((120, 160)) < 0.004),
    ],
)
def test_other_masks_are_not(inside):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_dithering([inside], "masks")


def test_single_pixels_are_counted():
    inside = np.zeros((12, 12), bool)
    inside[4, 4] = inside[8, 6] = True
    assert scattered_pixels(inside) == 2
    inside[4, 5] = True  # now a short line
    assert scattered_pixels(inside) == 1
    assert scattered_pixels(np.indices((12, 12)).sum(0) % 2 == 0) == 64  # the inner pixels of a chessboard
