"""Adversarial backgrounds for ``bgdebias probe``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torch_bgdebias.cli.probe.data import Prepared
from torch_bgdebias.compositing import fills_image, tile_fill, without_void
from torch_bgdebias.data import ImageNet9
from torch_bgdebias.metrics import adversarial_background_accuracy
from torch_bgdebias.probe.evaluation import ImageScore
from torch_bgdebias.subsets import spread_positions

__all__ = ["adversarial", "own_backgrounds", "published_backgrounds"]


def own_backgrounds(dataset: Prepared, count: int) -> Tensor:
    """Backgrounds (N, C, H, W), N <= count, of images spread over a data set and its classes, foregrounds tiled over.

    Images whose foreground's box is the whole image have no background to give.

    Raises:
        ValueError: none of them has.
    """
    positions = spread_positions(len(dataset), count, np.asarray(dataset.items.labels, np.int64))
    backgrounds = []
    for position in positions.tolist():
        item = dataset[position]
        image, mask = item["image"][None], item["mask"][None]
        void = item["void"][None] if "void" in item else None
        if not bool(fills_image(mask)):
            backgrounds.append(tile_fill(without_void(image, mask, void), mask)[0])
    if not backgrounds:
        raise ValueError(f"--adversarial: none of {len(positions)} pictures has a background beside its foreground")
    return torch.stack(backgrounds)


def published_backgrounds(root: Path, dataset: Prepared, size: tuple[int, int], count: int) -> Tensor:
    """The challenge's own backgrounds, ``only_bg_t`` of the release, at most ``count``, in the data set's units."""
    tiled = ImageNet9(root, "only_bg_t", size=size, masks=False)
    positions = np.linspace(0, len(tiled) - 1, min(count, len(tiled))).round().astype(int)
    return torch.stack([dataset.prepared(tiled[int(position)][0]) for position in positions])


def adversarial(bank: Tensor, *, logits: Any, chunk: int) -> ImageScore:
    """Score for ``evaluate_background_bias``: 1 where the image survives every background of the bank, else 0."""

    def robust(model: nn.Module, image: Tensor, mask: Tensor, label: Tensor) -> Tensor:
        survived = adversarial_background_accuracy(model, image, mask, label, bank, logits=logits, chunk=chunk)
        return torch.where(survived.valid, survived.robust.float(), torch.nan)

    return robust
