"""CLAD: a contrastive loss with the same object on other backgrounds and other objects on the same background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.clad.callback import CLADCallback as CLADCallback
    from torch_bgdebias.clad.functional import clad_loss as clad_loss, clad_queue_loss as clad_queue_loss
    from torch_bgdebias.clad.loss import CLADLoss as CLADLoss
    from torch_bgdebias.clad.queue import NegativeQueue as NegativeQueue
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.clad.callback": ["CLADCallback"],
            "torch_bgdebias.clad.functional": ["clad_loss", "clad_queue_loss"],
            "torch_bgdebias.clad.loss": ["CLADLoss"],
            "torch_bgdebias.clad.queue": ["NegativeQueue"],
        },
    )
