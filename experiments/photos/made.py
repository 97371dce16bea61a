"""Training masks that a maker made of the composites, as somebody has them who was given none."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from experiments.photos.settings import MEAN, STD, Photographs
from torch_bgdebias.compositing import bounding_boxes
from torch_bgdebias.masks import Hints, MaskMaker
from torch_bgdebias.masks.damage import overlap
from torch_bgdebias.masks.making.protocol import checked_masks

_BATCH = 16


def with_made_masks(data: Photographs, maker: MaskMaker, *, boxes: bool) -> tuple[Photographs, float]:
    """The same training images and labels with a maker's masks; the tests keep theirs.

    Args:
        data: as `photographs` makes it.
        maker: sees the composites.
        boxes: the maker is given the true box of each object.

    Returns:
        The data, and the mean intersection over union of the masks with the true ones.
    """
    image, label, truth = data.train.tensors
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    masks: list[Tensor] = []
    for rows in torch.arange(len(image)).split(_BATCH):
        pixels = (image[rows] * std + mean).clamp(0, 1)
        known = [box[None] for box in bounding_boxes(truth[rows])] if boxes else [None] * len(rows)
        outcome = checked_masks(maker(pixels, Hints([None] * len(rows), known)), pixels, maker.name)
        masks.append(outcome.mask[:, None])
    mask = torch.cat(masks).to(truth.dtype)
    train = TensorDataset(image, label, mask)
    return dataclasses.replace(data, train=train), float(overlap(mask, truth).mean())
