"""Adding to what a training step returned, and gradients inside validation hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_to_loss", "answer_widths", "gradients_allowed"]

#: nodes of a loss that are looked at
_NODES = 2000


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


def answer_widths(output: Any) -> set[int]:
    """How many classes the softmaxes of a training step's loss are taken over; empty where it has none that is seen.

    Args:
        output: what the step returned, before its backward pass.
    """
    loss = output.get("loss") if isinstance(output, dict) else output
    waiting: list[Any] = [loss.grad_fn] if isinstance(loss, Tensor) else []
    widths: set[int] = set()
    seen: set[Any] = set()
    while waiting and len(seen) < _NODES:
        node = waiting.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() in ("LogSoftmaxBackward0", "SoftmaxBackward0"):
            result = node._saved_result
            if result.ndim == 2:
                widths.add(int(result.shape[1]))
            continue  # what lies behind is the network's
        waiting += [following for following, _ in node.next_functions]
    return widths


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and enable gradients inside validation hooks; tensors made outside must be cloned."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
