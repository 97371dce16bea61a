"""Losses compute in float32 at least, also where the training runs under autocast."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["autocast_dtype", "autocast_off", "working_dtype", "working_precision"]


#: kinds of devices that know autocast, of the usual ones: torch before 2.7 cannot ask within a compiled step
_USUAL = frozenset(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))


def autocast_off(tensor: Tensor) -> AbstractContextManager[object]:
    """No autocast for operations on the tensor's device; nothing to do where that kind of device knows none."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if _has_autocast(kind) else nullcontext()


def autocast_dtype(tensor: Tensor) -> torch.dtype | None:
    """What autocast computes in on the tensor's device, ``None`` where it is off or unknown."""
    kind = tensor.device.type
    if not _has_autocast(kind) or not torch.is_autocast_enabled(kind):
        return None
    return torch.get_autocast_dtype(kind)


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype to compute in: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def working_precision(tensor: Tensor) -> Tensor:
    """float64 as it is, everything else as float32."""
    return tensor.to(working_dtype(tensor.dtype))


def _has_autocast(kind: str) -> bool:
    return kind in _USUAL or torch.amp.is_autocast_available(kind)
