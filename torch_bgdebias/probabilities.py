"""Outputs that are probabilities already, where logits are expected: a softmax's, also in per cent."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["are_probabilities", "without_softmax"]

#: what a softmax's outputs add up to, as shares and in per cent; rounding of bfloat16 stays within a hundredth of it
_WHOLES = (1.0, 100.0)


def are_probabilities(outputs: Tensor) -> bool:
    """Whether every row (B, K) is at least 0 and adds up to 1, or to 100: a softmax was taken already."""
    return bool(_add_up(outputs))


def without_softmax(outputs: Tensor) -> Tensor:
    """Logits (B, K) of outputs that are probabilities; any others as they are. Nothing is read from the device."""
    logits = outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()  # a factor of 100 is the same for all classes
    return torch.where(_add_up(outputs), logits, outputs)


def _add_up(outputs: Tensor) -> Tensor:
    """One bool on the outputs' device."""
    sums = outputs.float().sum(1)
    near = torch.stack([((sums - whole).abs() < 0.01 * whole).all() for whole in _WHOLES])
    return near.any() & (outputs >= 0).all()
