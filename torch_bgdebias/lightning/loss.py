"""Adds a term to the loss that a training step returned, and enables gradients in validation hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["add_to_loss", "answer_widths", "binary_widths", "gradients_allowed"]

#: nodes of a loss that are inspected
_NODES = 2000
#: nodes of softmaxes, and of binary cross-entropies -> where they keep the answers
_SOFTMAXES = dict.fromkeys(("LogSoftmaxBackward0", "SoftmaxBackward0"), "_saved_result")
_BINARY = dict.fromkeys(("BinaryCrossEntropyWithLogitsBackward0", "BinaryCrossEntropyBackward0"), "_saved_self")


def add_to_loss(output: Any, extra: Tensor, *, weight: float = 1.0) -> Any:
    """``weight * loss + extra`` for the result of a training step: a tensor, or a dict with the key ``loss``.

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
    """The class counts of the softmaxes in a training step's loss; empty if none is recognised.

    Args:
        output: what the step returned, before its backward pass.
    """
    return {int(value.shape[1]) for value in _values_at(output, _SOFTMAXES) if value.ndim == 2}


def binary_widths(output: Any) -> set[int]:
    """The numbers an image of the binary cross-entropies in a training step's loss; empty if none is recognised.

    Args:
        output: what the step returned, before its backward pass.
    """
    return {int(value.shape[1]) for value in _values_at(output, _BINARY) if value.ndim == 2}


def _values_at(output: Any, names: Mapping[str, str]) -> Iterator[Tensor]:
    """What nodes of these names in a step's loss have saved under the names' values; nothing behind softmaxes."""
    loss = output.get("loss") if isinstance(output, dict) else output
    pending: list[Any] = [loss.grad_fn] if isinstance(loss, Tensor) else []
    visited: set[Any] = set()
    while pending and len(visited) < _NODES:
        node = pending.pop(0)
        if node is None or node in visited:
            continue
        visited.add(node)
        if node.name() in names:
            yield getattr(node, names[node.name()])
        if node.name() not in _SOFTMAXES:  # what lies behind those is the network's
            pending += [following for following, _ in node.next_functions]


@contextmanager
def gradients_allowed() -> Iterator[None]:
    """Leave inference mode and enable gradients inside validation hooks; clone tensors made outside."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
