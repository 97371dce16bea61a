"""Which of the images that enter a network are those of the batch, where several views of them do."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Views", "views_of"]

#: which rows of the entering images are the batch's own, a slice that keeps their order
Views = slice


def views_of(entered: Tensor, image: Tensor) -> Views | None:
    """Which rows of a larger batch are the batch's own images, ``None`` where none are.

    Several views of each image come one after the other (``torch.cat``) or side by side (``repeat_interleave``).
    Waits for the device; call it once.

    Args:
        entered: (k B, C, H, W).
        image: (B, C, H, W).
    """
    batch = len(image)
    if len(entered) % batch or entered.shape[1:] != image.shape[1:]:
        return None
    count = len(entered) // batch
    blocks = [slice(i * batch, (i + 1) * batch) for i in range(count)]
    for rows in (*blocks, *(slice(i, None, count) for i in range(count))):
        if bool(torch.equal(entered[rows].detach(), image.detach().to(entered.dtype))):
            return rows
    return None
