"""Outlines are told from objects, at any size of picture; objects with holes are objects."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.masks.outlines import enclosed_pixels


def disc(side: int, radius: float, hole: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[:side, :side] - side / 2
    distance = np.hypot(y, x)
    return (distance <= radius) & (distance >= hole)


@pytest.mark.parametrize("side", [40, 200, 1001])
def test_enclosed_pixels_are_those_that_a_filling_adds(side: int) -> None:
    for hole in (0.0, 0.2, 0.33):
        inside = disc(side, 0.35 * side, hole * side)
        filled = int(ndimage.binary_fill_holes(inside).sum() - inside.sum())
        assert enclosed_pixels(inside) == pytest.approx(filled, abs=0.06 * side**2)
    cut = disc(side, 0.35 * side, 0.3 * side)
    cut[:, side // 2 - side // 20 : side // 2 + side // 20] = False  # open: nothing is enclosed
    assert enclosed_pixels(cut) == 0
    assert enclosed_pixels(np.zeros((side, side // 3), bool)) == 0
    assert enclosed_pixels(np.ones((side, side // 3), bool)) == 0


def folder(root, masks):
    generator = np.random.default_rng(0)
    for number, mask in enumerate(masks):
        for kind, values in (
            ("images", generator.integers(0, 255, (*mask.shape, 3)).astype(np.uint8)),
            ("masks", mask.astype(np.uint8) * 255),
        ):
            path = root / kind / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(path)
    return root


def test_a_folder_of_outlines_is_told(tmp_path) -> None:
    outlines = [disc(100, 20 + number, 18 + number) for number in range(8)]
    with pytest.warns(
        UserWarning, match=r"masks \(8 looked at.*8 of 8 are outlines\? What they enclose is .* fill them"
    ):
        MaskedImageFolder(folder(tmp_path / "a", outlines))
    with pytest.warns(UserWarning, match=r"outlines"):
        MaskedImageFolder(tmp_path / "a", foreground=[255])


@pytest.mark.parametrize("hole", [0.0, 0.6], ids=["whole", "with a hole"])
def test_objects_are_not(tmp_path, hole: float) -> None:
    objects = [disc(100, 20 + number, hole * (20 + number)) for number in range(7)] + [disc(100, 30, 28)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(MaskedImageFolder(folder(tmp_path, objects))) == len(objects)
