"""Pictures with more than 8 bits per value: how they are recognised, what counts as white, conversion to 8 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = [
    "DEEP_COLOURS",
    "DEEP_ENDINGS",
    "WHITES",
    "UnreadableImageError",
    "brightest",
    "eight_bits",
    "has_deep_colours",
    "has_depth",
    "is_deep",
    "require_bright",
    "require_eight_bits",
    "white_of",
]

#: endings of formats that can hold more than 8 bits a value
DEEP_ENDINGS = frozenset((".jp2", ".pgm", ".pnm", ".png", ".tif", ".tiff"))
#: largest values of the bit depths that cameras and scanners have
WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)
#: modes of pictures whose channels may have had 16 bits
DEEP_COLOURS = ("RGB", "RGBA", "RGBX", "LA")
#: the upper 8 bits of 16 that hold a picture of 14 or less are all below this
_DARK = 64


class UnreadableImageError(OSError):
    """An image file that cannot be decoded: broken, truncated, empty or of an unknown format. Names the file."""


def is_deep(picture: Image.Image) -> bool:
    """Whether a decoded picture is grey of more than 8 bits, or of floats."""
    return picture.mode.startswith("I") or picture.mode == "F"


def require_eight_bits(picture: Image.Image, *, name: str) -> None:
    """Refuse what Pillow would convert by cutting off all values above 255: which one is white, it does not say."""
    if is_deep(picture):
        raise TypeError(
            f"{name}: expected a picture of 8 bits a channel, got mode {picture.mode!r}; divide its values by that of "
            "white and give floats in [0, 1], or bytes"
        )


def has_depth(path: Path) -> bool:
    """Whether a file holds such a picture."""
    try:
        with Image.open(path) as file:
            return is_deep(file)
    except Exception:  # reading the picture is what names a broken file
        return False


def has_deep_colours(path: str | Path) -> bool:
    """Whether a file holds colours of 16 bits, of which PIL keeps the upper 8."""
    if Path(path).suffix.lower() not in DEEP_ENDINGS:
        return False
    try:
        with Image.open(path) as file:
            layouts = [
                str(part) for tile in file.tile for part in (tile[3] if isinstance(tile[3], tuple) else tile[3:])
            ]
            return file.mode in DEEP_COLOURS and any(";16" in layout for layout in layouts)
    except Exception:  # reading the picture is what names a broken file
        return False


def brightest(picture: Image.Image) -> int:
    """The largest value of a picture of 8 bits."""
    return int(np.asarray(picture).max(initial=0))


def require_bright(picture: Image.Image, path: str | Path, white: float | None) -> None:
    """Refuse colours of 16 bits whose upper 8 are not what a viewer shows."""
    if white is not None and white < WHITES[-1]:
        raise UnreadableImageError(
            f"image file {path}: expected values up to {white:g}, which the data set's other files have for white, got "
            "colours of 16 bits; save it with 8 bits a channel"
        )
    if white is None and brightest(picture) < _DARK:
        needed = 256 * brightest(picture) + 255
        raise UnreadableImageError(
            f"image file {path}: colours of 16 bits that stop at {needed} or below, as those of cameras with 10 to 14 "
            "bits do: white cannot be told; save it with 8 bits a channel, or scaled to 65535"
        )


def white_of(picture: Image.Image, path: str | Path) -> float:
    """The value of white by the largest one of this picture."""
    _, high = _range_of(picture, path)
    return 1.0 if picture.mode == "F" and high <= 1 else next(white for white in WHITES if high <= white)


def eight_bits(picture: Image.Image, path: str | Path, white: float | None) -> Image.Image:
    """Grey of more than 8 bits as 8-bit grey, ``white`` as 255."""
    high = _range_of(picture, path)[1]
    if white is not None and high > white:
        raise UnreadableImageError(
            f"image file {path}: expected values up to {white:g}, which the data set's other files have for white, "
            f"got {high:g}; say what is white with white="
        )
    white = white_of(picture, path) if white is None else white
    values = np.asarray(picture).astype(np.float64)
    # the bits beyond the eighth are cut off: 65535 and 4095 become 255 as a shift makes them
    eight = np.floor(values * 256 / (white + 1)) if white > 1 else np.round(values * 255)
    return Image.fromarray(eight.clip(0, 255).astype(np.uint8))


def _range_of(picture: Image.Image, path: str | Path) -> tuple[float, float]:
    values = np.asarray(picture)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not 0 <= low <= high <= WHITES[-1]:  # NaN fails too
        raise UnreadableImageError(
            f"image file {path}: expected values in 0 to 65535, got {low:g} to {high:g}; bring them into a picture's "
            "range first (a window for radiographs, a sigmoid for logits)"
        )
    return low, high
