"""``MaskMaker``: the protocol of every mask maker: images in, soft masks and confidences out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from torch_bgdebias.checks import describe
from torch_bgdebias.masks.making.licences import Licence

__all__ = ["Hints", "MadeMasks", "MaskMaker", "MaskMakingError", "certainty", "checked_masks", "whole_boxes"]


class MaskMakingError(ValueError):
    """A maker returned no valid mask, or a picture lacks what the maker needs; names the maker."""


class MadeMasks(NamedTuple):
    """Masks of a batch.

    Attributes:
        mask: (B, H, W) float32 in [0, 1], 1 = object, of the images' size.
        confidence: (B,) float32 in [0, 1], as sure as the maker says it is; no measure of how right it is.
    """

    mask: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Hints:
    """Hints for each image of a batch.

    Args:
        texts: what its object is called, ``None`` if unknown.
        boxes: (K, 4) int64, top, left, bottom, right in pixels (the last two exclusive); ``None`` where there are none.
    """

    texts: Sequence[str | None]
    boxes: Sequence[Tensor | None]

    @classmethod
    def none(cls, count: int) -> Hints:
        """Empty hints for ``count`` images."""
        return cls([None] * count, [None] * count)


@runtime_checkable
class MaskMaker(Protocol):
    """Makes masks.

    Attributes:
        name: as `torch_bgdebias.masks.mask_maker` takes it.
        licence: what its weights may be used for.
        takes: what of the hints it uses: ``"text"``, ``"boxes"``.
        needs: what of them it cannot do without.
    """

    name: str
    licence: Licence
    takes: frozenset[str]
    needs: frozenset[str]

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1], on the CPU as they are."""
        ...


def checked_masks(masks_of_maker: MadeMasks, images: Tensor, maker: str) -> MadeMasks:
    """What a maker gave, on the CPU as float32.

    Raises:
        MaskMakingError: another kind or size than the images', values that are not finite or outside of [0, 1].
    """
    expected = (len(images), *images.shape[2:])
    mask, confidence = masks_of_maker
    if not isinstance(mask, Tensor) or mask.ndim not in (3, 4) or tuple(mask.reshape(-1).shape) == (0,):
        raise MaskMakingError(f"{maker}: expected masks {expected}, got {describe(mask)}")
    mask = mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 else mask
    if tuple(mask.shape) != expected:
        raise MaskMakingError(f"{maker}: expected masks {expected}, got {describe(mask)}")
    mask = mask.detach().float().cpu()
    if not bool(torch.isfinite(mask).all()):
        raise MaskMakingError(f"{maker}: expected finite values, got NaN or infinity")
    low, high = (float(value) for value in mask.aminmax())
    if low < -1e-3 or high > 1 + 1e-3:
        raise MaskMakingError(f"{maker}: expected values in [0, 1], got [{low:g}, {high:g}]; logits need a sigmoid")
    confidences = torch.as_tensor(confidence).detach().float().cpu()
    if tuple(confidences.shape) != expected[:1]:
        raise MaskMakingError(f"{maker}: expected confidences ({expected[0]},), got {describe(confidences)}")
    return MadeMasks(mask.clamp(0, 1), confidences.nan_to_num(0.0).clamp(0, 1))


def certainty(mask: Tensor) -> Tensor:
    """The overlap (B,) that a soft mask (B, H, W) expects of its cut at 1/2, were each pixel as likely as it says.

    Of pixels with probability p the cut at 1/2 is expected to meet ``sum(p[p > 1/2])`` of the object, and both together
    cover ``count(p > 1/2) + sum(p[p <= 1/2])``. 1 for a hard mask, 0 for an empty one.
    """
    inside = mask > 0.5
    overlap = (mask * inside).sum((1, 2))
    union = inside.sum((1, 2)) + (mask * ~inside).sum((1, 2))
    return torch.where(union > 0, overlap / union.clamp(min=1e-6), torch.zeros_like(overlap))


def whole_boxes(boxes: Tensor, height: int, width: int) -> Tensor | None:
    """Boxes x before y as top, left, bottom, right in whole pixels within the picture."""
    left, top, right, bottom = boxes.unbind(1)
    corners = torch.stack([top.floor(), left.floor(), bottom.ceil(), right.ceil()], 1)
    limits = torch.tensor([height, width, height, width])
    corners = torch.minimum(corners.clamp(min=0), limits).long()
    return corners[(corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])] if len(corners) else None
