"""``InBoxes``: runs a maker that takes no boxes on the picture and then on each box's crop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from torch_bgdebias.masks.making.protocol import Hints, MadeMasks, MaskMaker, certainty, checked_masks

__all__ = ["InBoxes", "otsu_threshold"]

#: of a box's height and width, shown around it
_MARGIN = 0.1
_LEVELS = 256


class InBoxes:
    """Masks of any maker within boxes, 0 outside: the mean of what it sees in the whole picture and in each box.

    A network of salient objects shows what stands out; a box says which of it is meant, and cut out it is large. Such a
    mean is low where the network missed the object in one of both, so what passes for half is found for each box: the
    threshold that parts its shares best (Otsu, 1979).

    Args:
        maker: makes the masks, and takes no boxes by itself.
    """

    def __init__(self, maker: MaskMaker) -> None:
        self.maker = maker
        self.name, self.licence = maker.name, maker.licence
        self.takes, self.needs = maker.takes | {"boxes"}, maker.needs

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]; images without boxes get the maker's own."""
        of_image = checked_masks(self.maker(images, hints), images, self.name)
        masks, confidence = of_image.mask.clone(), of_image.confidence.clone()
        for index, boxes in enumerate(hints.boxes):
            if boxes is not None:
                masks[index] = self._mask_in_boxes(images[index], of_image.mask[index], boxes, hints.texts[index])
                confidence[index] = certainty(masks[index][None])[0]
        return MadeMasks(masks, confidence)

    def _mask_in_boxes(self, image: Tensor, of_image: Tensor, boxes: Tensor, text: str | None) -> Tensor:
        joined = torch.zeros_like(of_image)
        height, width = of_image.shape
        for top, left, bottom, right in boxes.tolist():
            dy, dx = int((bottom - top) * _MARGIN), int((right - left) * _MARGIN)
            y0, x0, y1, x1 = max(0, top - dy), max(0, left - dx), min(height, bottom + dy), min(width, right + dx)
            crop = image[None, :, y0:y1, x0:x1]
            in_crop = checked_masks(self.maker(crop, Hints([text], [None])), crop, self.name).mask[0]
            share = (of_image[top:bottom, left:right] + in_crop[top - y0 : bottom - y0, left - x0 : right - x0]) / 2
            inner = joined[top:bottom, left:right]
            joined[top:bottom, left:right] = torch.maximum(inner, _stretched(share, otsu_threshold(share)))
        return joined


def otsu_threshold(shares: Tensor) -> float:
    """Where values in [0, 1] are best parted in two: the largest variance between the parts; 1/2 where all are alike.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979.
    """
    levels = shares.mul(_LEVELS - 1).round().long().flatten().numpy()
    counts = np.bincount(levels, minlength=_LEVELS).astype(np.float64)
    below, values = np.cumsum(counts), np.arange(_LEVELS)
    above = below[-1] - below
    sums = np.cumsum(counts * values)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    between[(below == 0) | (above == 0)] = -1
    if between.max() <= 0:
        return 0.5
    best = np.flatnonzero(between == between.max())  # a gap without values: its middle
    return float(np.clip((best[0] + best[-1] + 1) / 2 / (_LEVELS - 1), 0.02, 0.98))


def _stretched(share: Tensor, threshold: float) -> Tensor:
    """Piecewise linear: 0, the threshold and 1 become 0, 1/2 and 1."""
    low = share / (2 * threshold)
    high = 0.5 + (share - threshold) / (2 * (1 - threshold))
    return torch.where(share <= threshold, low, high)
