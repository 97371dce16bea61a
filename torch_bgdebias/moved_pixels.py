"""Whether images were changed by more than a normalisation, so that masks made for them no longer fit."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["more_than_pointwise", "same_images"]


def same_images(entered: Tensor, image: Tensor) -> bool:
    """Whether both are one tensor, which costs nothing to see."""
    return entered is image or (
        entered.data_ptr() == image.data_ptr()
        and entered.shape == image.shape
        and entered.stride() == image.stride()
        and entered.dtype == image.dtype
    )


def more_than_pointwise(after: Tensor, before: Tensor, *, pixels: int = 4096, tolerance: float = 1e-3) -> Tensor:
    """Whether images were changed by more than a normalisation: flips, crops and mixes move what masks belong to.

    In each image, the new channels are fitted by an affine function of the old ones, the same for all pixels:
    normalisation, brightness, contrast and grey conversion leave nothing over.

    Args:
        after: (B, C', H, W).
        before: (B, C, H, W), of the same batch and size.
        pixels: about so many are looked at.
        tolerance: share of the new channels' variance that may be left over.

    Returns:
        Tensor: a bool scalar on the images' device, which has not been waited for.
    """
    step = max(1, after.shape[2] * after.shape[3] // pixels)
    old, new = (x.detach().flatten(2)[:, :, ::step].double().transpose(1, 2) for x in (before, after))
    old, new = old - old.mean(1, keepdim=True), new - new.mean(1, keepdim=True)
    gram = old.transpose(1, 2) @ old
    ridge = 1e-9 * gram.diagonal(dim1=1, dim2=2).sum(1) + 1e-12
    gram = gram + ridge.view(-1, 1, 1) * torch.eye(old.shape[2], dtype=old.dtype, device=old.device)
    weights = torch.linalg.inv_ex(gram)[0] @ (old.transpose(1, 2) @ new)
    left_over = (new - old @ weights).square().sum((1, 2))
    changed: Tensor = (left_over > tolerance * new.square().sum((1, 2)) + 1e-12).any()
    return changed
