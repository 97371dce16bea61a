"""``foreground_of``: a mask's values as foreground and void, once the encoding is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from torch_bgdebias.masks.contents import MaskContents, Plane
from torch_bgdebias.masks.encodings import Label, MaskEncoding

__all__ = ["foreground_of"]


def foreground_of(mask: MaskContents, encoding: MaskEncoding) -> tuple[Plane, Plane | None]:
    """Foreground (H, W) uint8, 255 = object, and void (H, W) bool or ``None``, by a resolved encoding."""
    if encoding.kind == "alpha":
        values = np.full(mask.size, 255, np.uint8) if mask.alpha is None else mask.alpha
        return _shares(values, encoding), None
    if encoding.kind == "colour":
        return _of_colours(mask, encoding)
    if encoding.kind == "binary" and mask.palette is not None:
        bright = mask.as_colours().astype(int).sum(2)
        return _bytes(bright > (int(bright.max()) + int(bright.min())) / 2), None
    values = mask.values
    if encoding.kind == "soft":
        return _shares(values, encoding), None
    if encoding.kind == "binary":
        inside = values > (encoding.white or 255.0) / 2
        return _bytes(~inside if encoding.foreground == (0,) else inside), None
    void = np.isin(values, [v for v in encoding.void or () if isinstance(v, int)])
    inside = values != 0 if encoding.foreground is None else np.isin(values, list(encoding.foreground))
    return _bytes(inside & ~void), void if void.any() else None


def _shares(values: Plane, encoding: MaskEncoding) -> Plane:
    share = np.clip(values.astype(np.float64) / (encoding.white or 255.0), 0, 1)
    share = 1 - share if encoding.foreground == (0,) else share
    return np.round(share * 255).astype(np.uint8)


def _of_colours(mask: MaskContents, encoding: MaskEncoding) -> tuple[Plane, Plane | None]:
    colours = mask.as_colours()
    void = _is_one_of(colours, encoding.void or (), mask.lossy)
    inside: Plane
    if encoding.foreground is not None:
        inside = _is_one_of(colours, encoding.foreground, mask.lossy)
    elif mask.lossy or len(mask.colours) > 64:
        inside = np.asarray(
            colours.max(2) >= 64
        )  # shades at the edges, and noise, are less than half of a label's colour
    else:
        inside = np.asarray(colours.any(2))
    return _bytes(inside & ~void), void if void.any() else None


def _is_one_of(colours: Plane, labels: Sequence[Label], lossy: bool) -> Plane:
    matches = np.zeros(colours.shape[:2], bool)
    for label in labels:
        colour = label if isinstance(label, tuple) else (label, label, label)
        difference = np.abs(colours.astype(int) - np.array(colour)).max(2)
        np.logical_or(matches, difference <= (48 if lossy else 0), out=matches)
    return matches


def _bytes(inside: Plane) -> Plane:
    return inside.astype(np.uint8) * np.uint8(255)
