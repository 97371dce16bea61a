"""``read_pair``: one image with its mask, at one size."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.data.pairing import size_advice
from torch_bgdebias.data.turned import fitting_turn
from torch_bgdebias.files import as_tensor, open_image, resized, turned
from torch_bgdebias.masks.annotated import AnnotatedMasks
from torch_bgdebias.masks.encodings import MaskEncoding
from torch_bgdebias.masks.reading import MaskReader

__all__ = ["MaskSizeError", "MaskedTriple", "read_pair"]


class MaskSizeError(ValueError):
    """A mask has another size than its image; the message names both files and both sizes."""


class MaskedTriple(NamedTuple):
    """What an image and its mask hold, at one size.

    Attributes:
        image: (3, H, W) uint8.
        mask: (1, H, W) uint8, 255 = foreground; 0 where it is void.
        void: (1, H, W) bool, true where a pixel is neither object nor background.
    """

    image: Tensor
    mask: Tensor
    void: Tensor


def read_pair(
    image_path: Path,
    mask_path: Path,
    size: tuple[int, int] | None,
    *,
    masks: MaskReader | AnnotatedMasks | None = None,
    white: float | None = None,
    interpolation: str = "bilinear",
) -> MaskedTriple:
    """Read an image and its mask, and require that the files have one size.

    A mask that was drawn on the pixels as stored, of a picture that its EXIF flag turns by 90 degrees, is turned along;
    one with such a flag of its own that turns it away from its picture is read as it is stored.

    Args:
        image_path: the image.
        mask_path: its mask.
        size: (H, W) to resize to, ``None``: as they are.
        masks: reads the mask; by default its encoding is found from the file alone. `AnnotatedMasks` know a mask by its
            image.
        white: as in ``open_image``.
        interpolation: of the image.

    Raises:
        UnreadableImageError: one of them cannot be decoded.
        MaskSizeError: their sizes differ.
        MaskEncodingError: the mask does not say what is object.
    """
    image = open_image(image_path, white=white)
    foreground, void = (masks or MaskReader(MaskEncoding(), {})).open(mask_path)
    if image.size != foreground.size == image.size[::-1]:
        fitting = fitting_turn(image_path, None if isinstance(masks, AnnotatedMasks) else mask_path)
        foreground, void = turned(foreground, fitting), None if void is None else turned(void, fitting)
    if image.size != foreground.size:
        raise MaskSizeError(
            f"mask {mask_path}: expected the size {(image.height, image.width)} (H, W) of its image {image_path}, "
            f"got {(foreground.height, foreground.width)}; " + size_advice(image.size, foreground.size)
        )
    mask = as_tensor(resized(foreground, size))
    is_void = torch.zeros_like(mask, dtype=torch.bool) if void is None else as_tensor(resized(void, size)) > 127
    return MaskedTriple(as_tensor(resized(image, size, interpolation)), mask.masked_fill(is_void, 0), is_void)
