"""A model's output as one row of logits an image, whatever the model returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_bgdebias.checks import check_finite, describe
from torch_bgdebias.models import LogitsKey, logits_of

__all__ = ["TASKS", "class_logits", "log_odds_of", "logits_for", "sigmoid_taken", "undo_sigmoid"]

#: the least that a float32 probability tells from 0, and what one of 1.0 may have been rounded by
_LEAST, _ROUNDED = 1e-38, 2.0**-25
#: more of the sigmoids' columns are not compared with an output's
_MOST_COLUMNS = 16384

TASKS = ("multiclass", "binary", "multilabel")


def logits_for(task: str, key: LogitsKey) -> LogitsKey:
    """Where to find the logits of two or more classes, or of each label, in an output of a model for this task."""
    return key if task != "binary" else lambda output: _two_columns(logits_of(output, key))


def class_logits(output: Any, key: LogitsKey, *, size: int, task: str, where: str) -> Tensor:
    """Logits (B, K) float32 on the host.

    Args:
        output: what the model returned.
        key: where the logits are in it.
        size: images in the batch.
        task: ``"multiclass"``, ``"binary"`` or ``"multilabel"``.
        where: which batch it was, for errors.

    Raises:
        ValueError: another shape, or values that are not finite.
    """
    logits = logits_of(output, logits_for(task, key))
    if logits.is_complex():
        raise ValueError(
            f"model output: expected real logits, got {describe(logits)}; pass logits= to say which they are"
        )
    if task == "multilabel" and (logits.ndim != 2 or len(logits) != size or not logits.shape[1]):
        raise ValueError(
            f"model output: expected logits ({size}, L), one a label, for task='multilabel', got {describe(logits)}; "
            "pass logits= to say where they are"
        )
    if task != "multilabel" and (logits.ndim != 2 or len(logits) != size or logits.shape[1] < 2):
        hint = "pass logits= to say where logits of at least two classes are"
        if logits.shape in ((size,), (size, 1)):
            hint += ", or task='binary' for a model with one logit"
        raise ValueError(f"model output: expected logits ({size}, K), K > 1, got {describe(logits)}; {hint}")
    return check_finite(logits.float().cpu(), name=f"logits ({where})")


def log_odds_of(logits: Tensor, task: str) -> Tensor:
    """(B, K) log odds of each class against all others, or of each label: no rank is lost where a softmax says 1.0."""
    if task == "multilabel":
        return logits
    if logits.shape[1] == 2:
        difference = logits[:, 1] - logits[:, 0]
        return torch.stack([-difference, difference], 1)
    exact = logits.double()
    log_share = exact.log_softmax(1)
    best = exact.argmax(1, keepdim=True)
    beside = exact.scatter(1, best, -math.inf).logsumexp(1, keepdim=True)  # all others than the best, without rounding
    odds = log_share - torch.log1p(-log_share.exp().clamp_max(0.5))
    return odds.scatter(1, best, exact.gather(1, best) - beside).float()


def undo_sigmoid(share: Tensor) -> Tensor:
    """Log odds float32 of probabilities in [0, 1]; 0 and 1 are as far out as float32 tells them from a neighbour."""
    p = share.double()
    return (p.clamp_min(_LEAST).log() - (1 - p).clamp_min(_ROUNDED).log()).float()


def sigmoid_taken(run: Callable[[], Tensor], whole: float = 1.0) -> bool:
    """Whether what a model returns is made of sigmoids' outputs, by watching the model compute it.

    Args:
        run: calls the model and returns its output.
        whole: what they were multiplied with, 100 for per cent.
    """
    with _SigmoidWatch() as sigmoids:
        output = run()
    is_one = whole == 1 and any(_same_memory(output, result) for result in sigmoids.outputs)
    return is_one or _made_of(output, sigmoids.outputs, whole)


def _made_of(output: Tensor, sigmoids: Sequence[Tensor], whole: float) -> bool:
    """Whether every column of an output, of several images, is one of the sigmoids' times ``whole``."""
    size = len(output) if output.ndim else 0
    tables = [x.reshape(size, -1).float() for x in sigmoids if size > 1 and x.ndim and len(x) == size]
    if not tables or sum(table.shape[1] for table in tables) > _MOST_COLUMNS:
        return False
    columns, shares = torch.cat(tables, 1), output.reshape(size, -1).float() / whole
    tolerance = 4 * torch.finfo(output.dtype).eps if output.is_floating_point() else 0.0
    return all(bool(((columns - share[:, None]).abs().amax(0) <= tolerance).any()) for share in shares.T)


class _SigmoidWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps what sigmoids return; kept alive, so that no later tensor takes their place in memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.outputs: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket in (torch.ops.aten.sigmoid, torch.ops.aten.sigmoid_) and isinstance(result, Tensor):
            self.outputs.append(result)
        return result


def _same_memory(first: Tensor, second: Tensor) -> bool:
    return first.device == second.device and first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()


def _two_columns(logits: Tensor) -> Tensor:
    """One logit z of class 1 as logits (-z/2, z/2) of classes 0 and 1: their softmax is the sigmoid of z."""
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2 or logits.shape[1] != 1:
        raise ValueError(f"model output: expected one logit an image for task='binary', got {describe(logits)}")
    return torch.cat([-logits / 2, logits / 2], 1)
