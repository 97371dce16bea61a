"""One mask a class: the original ISNet judges every heatmap by the mask of its own class."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.checks import describe
from torch_bgdebias.isnet.rules import Rules

__all__ = ["dimming_mask", "loss_mask"]


def dimming_mask(mask: Tensor, rank: int = 4) -> Tensor:
    """What is foreground of any class (B, 1, H, W), from masks (B, K, H, W); one mask an image stays as it is.

    ``rank`` is how many dimensions the images have: 5 for volumes, whose masks have a depth before the height.
    """
    if not _has_class_axis(mask, rank):
        return mask
    return mask.any(1, keepdim=True) if mask.dtype == torch.bool else mask.amax(1, keepdim=True)


def loss_mask(mask: Tensor, rules: Rules, rank: int = 4) -> Tensor:
    """The masks as `ISNetLoss` takes them: (B, M, 1, H, W), a heatmap each, of the classes that are explained.

    Args:
        mask: (B, K, H, W) in the order of the logits; one mask an image, (B, 1, H, W) or (B, H, W), stays as it is.
        rules: what is explained.
        rank: see `dimming_mask`.

    Raises:
        ValueError: masks of classes, and heatmaps that are not those of classes.
    """
    if not _has_class_axis(mask, rank):
        return mask
    if rules.variant != "original":
        raise ValueError(
            f"mask: expected one mask an image (B, 1, H, W), got {describe(mask)}; a mask for each class needs a "
            f"heatmap for each class, which variant='original' has and {rules.variant!r} has not"
        )
    return mask[:, rules.explained_classes(mask.shape[1])].unsqueeze(2)


def _has_class_axis(mask: Tensor, rank: int) -> bool:
    return mask.ndim == rank and mask.shape[1] > 1
