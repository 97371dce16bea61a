"""The share of a heatmap's relevance that lies on the foreground."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.checks import check_mask
from torch_bgdebias.isnet.functional import check_relevance
from torch_bgdebias.precision import working_precision

__all__ = ["foreground_share", "pixel_ratio"]


def foreground_share(relevance: Tensor, mask: Tensor, void: Tensor | None = None) -> Tensor:
    """Share of the absolute relevance on the foreground (B,), the mean over an image's heatmaps that have any.

    Args:
        relevance: (B, M, C, H, W), or of volumes (B, M, C, D, H, W).
        mask: (B, 1, H, W), (B, H, W) or one a heatmap (B, M, 1, H, W), in [0, 1], 1 on the foreground; of volumes with
            a depth before the height.
        void: pixels that are neither, which count for nothing.

    Returns:
        Tensor: in [0, 1]; NaN where no heatmap has any relevance.
    """
    return _share(working_precision(relevance).abs().sum(2), relevance, mask, void)


def pixel_ratio(relevance: Tensor, mask: Tensor, void: Tensor | None = None) -> Tensor:
    """Share of the positive relevance, channels summed, on the foreground (B,); see `foreground_share`.

    With one heatmap an image it is `torch_bgdebias.metrics.pixel_ratio`.

    Source: arXiv 2512.05937.
    """
    return _share(working_precision(relevance).sum(2).clamp(min=0), relevance, mask, void)


def _share(size: Tensor, relevance: Tensor, mask: Tensor, void: Tensor | None) -> Tensor:
    check_relevance(relevance)
    of_maps = mask.ndim == relevance.ndim
    inside = mask[:, :, 0].to(size.dtype) if of_maps else check_mask(mask, size).to(size.dtype)
    if void is not None:
        unclear = check_mask(void, size, name="void").to(size.dtype)
        size, inside = size * (1 - unclear), torch.minimum(inside, 1 - unclear)
    total = size.flatten(2).sum(2)
    shares = (size * inside).flatten(2).sum(2) / total
    return torch.where(total > 0, shares, torch.nan).nanmean(1)
