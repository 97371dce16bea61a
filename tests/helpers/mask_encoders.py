"""A foreground written in every encoding that people's masks have: `tests/masks` reads it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from torch_bgdebias.masks.contents import voc_palette

VOC_PALETTE = voc_palette().ravel().tolist()
#: an object (H, W) bool of 80 pixels in a picture of 480
INSIDE = np.zeros((20, 24), bool)
INSIDE[5:15, 6:14] = True


def labels(inside, numbers=(1, 2), void=None, band=None):
    """The object's columns split among several labels."""
    parts = np.array(numbers)[np.arange(inside.shape[1]) * len(numbers) // inside.shape[1]]
    index = np.where(inside, parts[None, :], 0)
    return index if void is None else np.where(band, void, index)


def band_around(inside):
    """Background pixels beside the object: what VOC leaves void."""
    grown = inside.copy()
    for axis in (0, 1):
        for step in (1, -1):
            grown |= np.roll(inside, step, axis)
    return grown & ~inside


def paletted(index, palette, path, **options):
    picture = Image.fromarray(index.astype(np.uint8), "P")
    picture.putpalette(palette)
    picture.save(path, **options)


def coloured(inside, inner, outer=(0, 0, 0)):
    return np.where(inside[..., None], inner, outer).astype(np.uint8)


def save(values, path, **options):
    Image.fromarray(values).save(path, **options)


Write = Callable[[np.ndarray, Path], None]

#: name -> (ending, how a foreground (H, W) bool is written)
ENCODERS: dict[str, tuple[str, Write]] = {
    "0 and 255": (".png", lambda m, p: save(m.astype(np.uint8) * 255, p)),
    "0 and 1": (".png", lambda m, p: save(m.astype(np.uint8), p)),
    "0 and 1, 16 bit": (".png", lambda m, p: save(m.astype(np.uint16), p)),
    "0 and 255, 16 bit": (".tif", lambda m, p: save(m.astype(np.uint16) * 255, p)),
    "0 and 65535": (".png", lambda m, p: save(m.astype(np.uint16) * 65535, p)),
    "one level": (".png", lambda m, p: save(m.astype(np.uint8) * 128, p)),
    "one bit": (".png", lambda m, p: Image.fromarray(m).save(p)),
    "grey gif": (".gif", lambda m, p: save(m.astype(np.uint8) * 255, p)),
    "RGB gif": (".gif", lambda m, p: save(coloured(m, (255, 255, 255)), p)),
    "quantised": (".png", lambda m, p: Image.fromarray(coloured(m, (255, 255, 255))).quantize(2).save(p)),
    "palette, white first": (".png", lambda m, p: paletted(~m, [255, 255, 255, 0, 0, 0], p)),
    "palette, red first": (".png", lambda m, p: paletted(~m, [255, 0, 0, 0, 0, 0], p)),
    "VOC with void": (".png", lambda m, p: paletted(labels(m, (15, 7), 255, band_around(m)), VOC_PALETTE, p)),
    "VOC as grey numbers": (".png", lambda m, p: save(labels(m, (15, 7), 255, band_around(m)).astype(np.uint8), p)),
    "VOC as RGB": (".png", lambda m, p: save(voc_palette()[labels(m, (15, 7), 255, band_around(m))], p)),
    "VOC with transparency": (
        ".png",
        lambda m, p: paletted(labels(m, (15, 7), 255, band_around(m)), VOC_PALETTE, p, transparency=0),
    ),
    "void of 16 bit": (
        ".png",
        lambda m, p: save(labels(m, (1000, 26001), 65535, band_around(m)).astype(np.uint16), p),
    ),
    "instance ids, packed tif": (
        ".tif",
        lambda m, p: save(labels(m, (900, 1800)).astype(np.uint16), p, compression="tiff_lzw"),
    ),
    "big-endian tif": (".tif", lambda m, p: save((m * 65535).astype(">u2"), p)),
    "label colours, opaque": (
        ".png",
        lambda m, p: save(np.dstack([coloured(m, (200, 0, 0)), np.full(m.shape, 255, np.uint8)]), p),
    ),
    "CMYK JPEG": (".jpg", lambda m, p: Image.fromarray(m.astype(np.uint8) * 255).convert("CMYK").save(p, quality=95)),
    "DAVIS": (".png", lambda m, p: paletted(labels(m, (1, 2)), VOC_PALETTE, p)),
    "label map": (".png", lambda m, p: save(labels(m, (1, 2, 3)).astype(np.uint8), p)),
    "instance ids": (".png", lambda m, p: save(labels(m, (1, 90, 200)).astype(np.uint8), p)),
    "instance ids, 16 bit": (".png", lambda m, p: save(labels(m, (1000, 26001)).astype(np.uint16), p)),
    "instance ids, tif": (".tif", lambda m, p: save(labels(m, (3, 70000)).astype(np.int32), p)),
    "red": (".png", lambda m, p: save(coloured(m, (255, 0, 0)), p)),
    "blue": (".bmp", lambda m, p: save(coloured(m, (0, 0, 255)), p)),
    "CVAT's pink, webp": (".webp", lambda m, p: save(coloured(m, (250, 50, 83)), p, lossless=True)),
    "ImageNet-S": (".png", lambda m, p: save(coloured(m, (3, 1, 0)), p)),
    "alpha of a picture": (".png", lambda m, p: save(cut_out(m), p)),
    "grey with alpha": (".png", lambda m, p: save(np.dstack([np.full(m.shape, 9), m * 255]).astype(np.uint8), p)),
    "JPEG": (".jpg", lambda m, p: save(m.astype(np.uint8) * 255, p, quality=90)),
    "RGB JPEG": (".jfif", lambda m, p: Image.fromarray(coloured(m, (255, 255, 255))).save(p, "JPEG", quality=90)),
    "AVIF": (".avif", lambda m, p: Image.fromarray(coloured(m, (255, 255, 255))).save(p, quality=90)),
    "palette cut out": (".png", lambda m, p: paletted(m * 3, [90, 40, 10, *[20] * 6, 7, 7, 8], p, transparency=0)),
    "palette of 1 bit, opaque": (".png", lambda m, p: paletted(m, [9, 9, 8] * 2, p, transparency=b"\0\xff")),
    "BMP of 1 bit": (".bmp", lambda m, p: Image.fromarray(m).save(p)),
    "fax": (".tif", lambda m, p: Image.fromarray(m).save(p, compression="group4")),
    "white is 0 tif": (".tif", lambda m, p: save(m.astype(np.uint8) * 255, p, tiffinfo={262: 0})),
    "CMYK tif": (".tif", lambda m, p: Image.fromarray(m.astype(np.uint8) * 255).convert("CMYK").save(p)),
    "silhouette": (".png", lambda m, p: save(np.dstack([coloured(m, (0, 0, 0)), m * 255]).astype(np.uint8), p)),
    "half array": (".npy", lambda m, p: np.save(p, m.astype(np.float16))),
    "big-endian array": (".npy", lambda m, p: np.save(p, m.astype(">i4"))),
    "bool array": (".npy", lambda m, p: np.save(p, m)),
    "float array": (".npy", lambda m, p: np.save(p, m.astype(np.float32))),
    "float array to 255": (".npy", lambda m, p: np.save(p, m[None] * 255.0)),
    "label array": (".npy", lambda m, p: np.save(p, labels(m, (1, 5)).astype(np.int64))),
    "float tif": (".tif", lambda m, p: save(m.astype(np.float32), p)),
    "grey whose white is transparent": (".png", lambda m, p: save(m.astype(np.uint8) * 255, p, transparency=255)),
    "RGB whose black is transparent": (".png", lambda m, p: save(coloured(m, (9, 0, 0)), p, transparency=(0, 0, 0))),
    "paletted tif": (".tif", lambda m, p: paletted(m * 2, [0, 0, 0, 128, 0, 0, 0, 128, 0], p)),
    "grey, opaque": (".png", lambda m, p: save(np.dstack([m * 255, m * 0 + 255]).astype(np.uint8), p)),
    "animation of one frame": (".png", lambda m, p: save(m.astype(np.uint8) * 255, p, save_all=True)),
    "ADE20K": (
        ".png",
        lambda m, p: save(coloured(m, (50, 220, 1)), p),
    ),  # class 5 * 256 + 220, object 1
    "JPEG 2000": (".jp2", lambda m, p: save(m.astype(np.uint8) * 255, p)),
}


def cut_out(inside):
    """A picture whose background is transparent, with colours under it that nobody sees."""
    colours = np.random.default_rng(0).integers(0, 256, (*inside.shape, 3))
    return np.dstack([colours, inside * 255]).astype(np.uint8)
