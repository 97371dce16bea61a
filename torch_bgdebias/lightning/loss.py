"""Adding to what a training step returned, and gradients inside validation hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_to_loss", "gradients_allowed"]


def add_to_loss(output: Any, extra: Tensor, *, weight: float = 1.0) -> Any:
    """``weight * loss + extra`` in what a training step returned: a tensor, or a dict with the key ``loss``.

    Raises:
        TypeError: the step returned neither (manual optimisation: call the functional form in your own step).
    """
    if isinstance(output, Tensor):
        return output * weight + extra
    if isinstance(output, dict) and isinstance(output.get("loss"), Tensor):
        return {**output, "loss": output["loss"] * weight + extra}
    raise TypeError(
        f"training_step: expected a loss tensor or a dict with 'loss', got {type(output).__name__}; "
        "with manual optimisation use the loss class in your own training_step"
    )


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and enable gradients inside validation hooks; tensors made outside must be cloned."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
