"""Selects the class that an attribution explains."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.checks import check_finite, check_label

__all__ = ["target_class"]


def target_class(logits: Tensor, target: Tensor | int | None) -> Tensor:
    """The explained class of each sample (B,): the predicted one, one for all, or one each.

    Raises:
        ValueError: logits are not (B, K) or not finite, or a class is outside [0, K).
    """
    if logits.ndim != 2:
        raise ValueError(f"logits: expected shape (B, K), got {tuple(logits.shape)}")
    check_finite(logits, name="logits")
    if target is None:
        return logits.argmax(1)
    if isinstance(target, int):
        target = torch.full((logits.shape[0],), target, device=logits.device)
    return check_label(target, logits.shape[0], name="target", num_classes=logits.shape[1]).to(logits.device)
