"""What `CLADCallback` does, as a plain loop over batches (image, label, mask)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from small_training import CLASSES, RANK_0
from torch import Tensor

from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap


def by_hand(
    module: pl.LightningModule,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    steps: int | None = None,
    classes: int = CLASSES,
    plus: bool = False,
    weight: float = 1.0,
    **settings: Any,
) -> list[float]:
    """Train the module's ``net``, whose last layer is the head, with own losses and passes; the loss of each step.

    What the swap draws is what a callback of these settings draws.
    """
    reference = CLADCallback(BackgroundSwap(), **settings)
    loss = reference.settings.new_loss(classes)
    optimizer, values = module.configure_optimizers(), []
    module.train()
    for image, label, mask in batches:
        generator = reference._seeded(RANK_0)
        other = reference.swap(image, mask=mask, label=label, different_class=True, generator=generator)
        background = reference.swap.drawn["background_label"]
        body, head = module.net[:-1], module.net[-1]
        if reference.settings.joint:
            anchor, positive = body(torch.cat([image, other])).chunk(2)
        else:
            anchor, positive = body(image), body(other)
        total = F.cross_entropy(head(anchor), label) + weight * loss(anchor, positive, label, background)
        if plus:
            total = total + F.cross_entropy(head(positive), label)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        reference.steps += 1
        values.append(total.item())
        if len(values) == steps:
            break
    return values
