"""What a model's output says: one row of logits an image, whatever the model calls them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_bgdebias.checks import check_finite, describe
from torch_bgdebias.models import LogitsKey, logits_of

__all__ = ["TASKS", "are_probabilities", "class_logits", "logits_for"]

TASKS = ("multiclass", "binary")


def logits_for(task: str, key: LogitsKey) -> LogitsKey:
    """Where to find the logits of two or more classes in an output of a model for this task."""
    return key if task == "multiclass" else lambda output: _two_columns(logits_of(output, key))


def class_logits(output: Any, key: LogitsKey, *, size: int, task: str, where: str) -> Tensor:
    """Logits (B, K) float32 on the host.

    Args:
        output: what the model returned.
        key: where the logits are in it.
        size: images in the batch.
        task: ``"multiclass"`` or ``"binary"``.
        where: which batch it was, for errors.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    logits = logits_of(output, logits_for(task, key))
    if logits.ndim != 2 or len(logits) != size or logits.shape[1] < 2:
        hint = "pass logits= to say where logits of at least two classes are"
        if logits.shape in ((size,), (size, 1)):
            hint += ", or task='binary' for a model with one logit"
        raise ValueError(f"model output: expected logits ({size}, K), K > 1, got {describe(logits)}; {hint}")
    return check_finite(logits.float().cpu(), name=f"logits ({where})")


def are_probabilities(logits: Tensor) -> bool:
    """Whether every row (B, K) is at least 0 and adds up to 1: a softmax was taken already."""
    return bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-3).all())


def _two_columns(logits: Tensor) -> Tensor:
    """One logit z of class 1 as logits (-z/2, z/2) of classes 0 and 1: their softmax is the sigmoid of z."""
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2 or logits.shape[1] != 1:
        raise ValueError(f"model output: expected one logit an image for task='binary', got {describe(logits)}")
    return torch.cat([-logits / 2, logits / 2], 1)
