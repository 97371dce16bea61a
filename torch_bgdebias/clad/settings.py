"""``CLADSettings``: the callback's options beside swap and batch, validated once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from torch_bgdebias.checks import describe
from torch_bgdebias.clad.functional import check_temperature
from torch_bgdebias.clad.loss import CLADLoss
from torch_bgdebias.clad.paired import Forward
from torch_bgdebias.models import LogitsKey

__all__ = ["CLADSettings"]

#: loss of (logits, target)
Criterion: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


@dataclass(frozen=True)
class CLADSettings:
    """Options of `torch_bgdebias.callbacks.CLADCallback` beside swap, batch and log.

    Args:
        num_classes: how many keys the queue has; ``None``: outputs of the last linear layer (2 where that has one), or,
            where ``spec.background_label`` is given, classes of the swap's bank.
        weight: lambda, a number or a function of the epoch and of the training batches seen, both from 0.
        plus: CLAD+, the classification loss of the positives as well.
        num_negatives: rows per key.
        temperature: of the softmax.
        layer: name of the layer whose input is the embedding; ``None`` looks for the last linear layer. Of tokens
            (B, T, D) and maps (B, C, H, W) that enter it the average is taken.
        joint: one forward pass of images and positives together instead of one pass each: batch norm then sees both
            (its statistics in the user's step are of another, doubled batch), and is updated once instead of twice.
        label_of: makes one class a sample (B,) of targets that are something else: multi-label, soft labels.
        criterion: loss of (logits, target) for ``plus``; by default cross-entropy, for class labels only, and of one
            logit its binary form.
        logits: where the logits are in what the network returns, for ``plus`` with a ``layer`` of one's own.
        forward: how the module takes images with other backgrounds where its step calls no network with the images, but
            parts one after the other: ``lambda module, image: module.head(module.backbone(image))``, for images as they
            enter the first part; ``None``: its own forward.
        max_batch: with several processes, the most images of any process's batch (the loader's batch size): the step
            then never waits for the device. ``None``: any batches will do, and each step waits for their sizes.

    Raises:
        TypeError: ``weight`` neither a number nor a function, ``forward`` no function.
        ValueError: a number out of range, ``forward`` beside ``joint``.
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
    forward: Forward | None = None
    max_batch: int | None = None

    def __post_init__(self) -> None:
        weight = self.weight
        if not callable(weight) and (isinstance(weight, bool) or not isinstance(weight, int | float)):
            raise TypeError(f"weight: expected a number or a function of (epoch, step), got {describe(weight)}")
        if self.forward is not None and not callable(self.forward):
            raise TypeError(f"forward: expected a function of (module, image), got {describe(self.forward)}")
        if self.forward is not None and self.joint:
            raise ValueError("forward: takes the images with other backgrounds by themselves; pass joint=False")
        check_temperature(self.temperature)
        self.new_loss(1 if self.num_classes is None else self.num_classes)

    def new_loss(self, keys: int) -> CLADLoss:
        """Loss and empty queue for so many keys."""
        return CLADLoss(keys, None, self.num_negatives, self.temperature, max_batch=self.max_batch)

    def weight_at(self, epoch: int, step: int) -> float:
        """Lambda at an epoch and a number of training batches seen."""
        return float(self.weight(epoch, step)) if callable(self.weight) else float(self.weight)
