"""``CLADSettings``: what a callback needs to know beside swap and batch, checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from torch_bgdebias.checks import describe
from torch_bgdebias.clad.functional import check_temperature
from torch_bgdebias.clad.loss import CLADLoss
from torch_bgdebias.models import LogitsKey

__all__ = ["CLADSettings"]

#: loss of (logits, target)
Criterion: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class CLADSettings:
    """Options of :class:`~torch_bgdebias.callbacks.CLADCallback`, which explains them.

    Raises:
        TypeError: ``weight`` neither a number nor a function, ``num_classes`` no whole number.
        ValueError: a number out of range.
    """

    num_classes: int | None = None
    weight: float | Callable[[int, int], float] = 1.0
    plus: bool = False
    num_negatives: int = 32
    temperature: float = 0.2
    layer: str | None = None
    joint: bool = False
    label_of: Callable[[Tensor], Tensor] | None = None
    criterion: Criterion | None = None
    logits: LogitsKey = None
    max_batch: int | None = None

    def __post_init__(self) -> None:
        weight = self.weight
        if not callable(weight) and (isinstance(weight, bool) or not isinstance(weight, int | float)):
            raise TypeError(f"weight: expected a number or a function of (epoch, step), got {describe(weight)}")
        check_temperature(self.temperature)
        self.new_loss(1 if self.num_classes is None else self.num_classes)

    def new_loss(self, keys: int) -> CLADLoss:
        """Loss and empty queue for so many keys."""
        return CLADLoss(keys, None, self.num_negatives, self.temperature, max_batch=self.max_batch)

    def weight_at(self, epoch: int, step: int) -> float:
        """Lambda at an epoch and a number of training batches seen."""
        return float(self.weight(epoch, step)) if callable(self.weight) else float(self.weight)
