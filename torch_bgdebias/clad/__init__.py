"""CLAD: contrast an image with the same foreground elsewhere, and with other foregrounds on its own background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch_bgdebias.clad.functional import clad_loss, clad_queue_loss
from torch_bgdebias.clad.loss import CLADLoss
from torch_bgdebias.clad.queue import NegativeQueue

if TYPE_CHECKING:
    from torch_bgdebias.clad.callback import CLADCallback

__all__ = ["CLADCallback", "CLADLoss", "NegativeQueue", "clad_loss", "clad_queue_loss"]


def __getattr__(name: str) -> Any:
    if name == "CLADCallback":  # imports Lightning
        from torch_bgdebias.clad.callback import CLADCallback

        return CLADCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
