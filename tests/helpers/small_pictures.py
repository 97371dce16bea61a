"""Pictures and palettes for data sets that tests write."""

from __future__ import annotations

import numpy as np
from PIL import Image

H, W = 20, 30


def save(path, pixels, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette([v for c in range(256) for v in (c * 37 % 256, c * 91 % 256, c * 151 % 256)])
        assert picture.mode == "P"
    picture.save(path)
    return path


def photo(path, seed=0, size=(H, W)):
    return save(path, np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))
