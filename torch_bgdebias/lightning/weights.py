"""Detects whether weights were exchanged during validation, as weight averaging does."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_bgdebias.lightning.packages import LightningModule
from torch_bgdebias.sharded import local_part

__all__ = ["EXCHANGED", "WeightsNote"]

#: so many parameters are looked at, spread over the module
_LOOKED_AT = 16

EXCHANGED = (
    "its weights were exchanged between the batches of the validation and its end (weight averaging?), so others than "
    "the validated ones are there now; list this callback before the one that exchanges them"
)


class WeightsNote:
    """Sums of some parameters, to see whether they are still the same."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None

    def take(self, module: LightningModule) -> None:
        """Note the weights as they are in the first batch of an evaluation."""
        self._sums = _sums(module)

    def exchanged(self, module: LightningModule) -> bool:
        """Whether they are others now; forgets them. Waits for the device."""
        before, self._sums = self._sums, None
        return before is not None and not torch.equal(before, _sums(module))


def _sums(module: LightningModule) -> Tensor:
    weights = [local_part(weight) for weight in module.parameters()]
    step = max(1, len(weights) // _LOOKED_AT)
    totals = [weight.sum(dtype=torch.float32).nan_to_num() for weight in weights[::step]]
    return torch.stack(totals) if totals else torch.zeros(0)
