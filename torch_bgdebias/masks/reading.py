"""Reading mask files: what they hold, as foreground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from torch_bgdebias.files import as_tensor, decoded, resized

__all__ = ["open_mask", "read_mask"]


def read_mask(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read a foreground mask as uint8 (1, H, W), 255 = foreground; see ``open_mask`` for formats and errors.

    Args:
        path: the file.
        size: (H, W) to resize to (bilinear with anti-aliasing, so hard masks get soft edges).
    """
    return as_tensor(resized(open_mask(path), size))


def open_mask(path: str | Path) -> Image.Image:
    """Decode a foreground mask to 8-bit grey, 255 = foreground; values in between are a soft mask.

    A file of nothing but 0 and 1 is read as 0 and 255: taken literally it would be a mask that is empty to the eye and
    to every method.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded; the message names the file.
    """
    picture = decoded(path)
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        deep = values.max(initial=0) > 255
        picture = Image.fromarray((values >> 8 if deep else values).clip(0, 255).astype(np.uint8))
    elif picture.mode == "P" and max(picture.tobytes(), default=0) <= 1:
        picture = Image.frombytes("L", picture.size, picture.tobytes())  # indices 0 and 1, whatever the colours
    picture = picture.convert("L")
    if picture.getextrema()[1] == 1:
        picture = picture.point([0, *[255] * 255])
    return picture
