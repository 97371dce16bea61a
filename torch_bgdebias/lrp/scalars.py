"""The scalars of the logits that are explained, one per sample and map."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from torch_bgdebias.checks import check_label, describe

__all__ = ["Target", "chosen"]

#: classes (B,) or (B, M); float weights (B, K) of the logits; or a function of the logits (B, K) that returns scalars
#: (B,) or (B, M); ``None``: see the caller
Target: TypeAlias = "Tensor | Callable[[Tensor], Tensor] | None"


def chosen(logits: Tensor, target: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
    """The scalars (B, M) of ``logits`` (B, K) that ``target`` asks for, differentiable.

    Raises:
        ValueError: a shape or class that does not fit the logits.
        TypeError: neither a tensor nor a function, or a tensor that is neither integer classes nor float weights.
    """
    batch, classes = logits.shape
    if not isinstance(target, Tensor):
        if not callable(target):
            raise TypeError(f"target: expected a tensor of classes (B,) or (B, M), or a function, got {target!r}")
        scalars = target(logits)
        if not isinstance(scalars, Tensor) or scalars.ndim not in (1, 2) or len(scalars) != batch:
            raise ValueError(f"target: expected a function that returns (B,) or (B, M), got {describe(scalars)}")
        return scalars[:, None] if scalars.ndim == 1 else scalars
    if target.is_floating_point():
        if target.shape != logits.shape:
            raise ValueError(f"target: expected weights of shape {tuple(logits.shape)}, got {describe(target)}")
        return (logits * target).sum(1, keepdim=True)
    if target.ndim == 2 and len(target) == batch:
        columns = [check_label(t, batch, name="target", num_classes=classes) for t in target.unbind(1)]
        return logits.gather(1, torch.stack(columns, 1))
    return logits.gather(1, check_label(target, batch, name="target", num_classes=classes)[:, None])
