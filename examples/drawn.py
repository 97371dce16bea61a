"""Images for the examples with other trainers: a coloured square on a tint that goes with its class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

CLASSES = 3


def draw(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, 16, 16), labels and masks; the background's tint is the class as well."""
    label = torch.randint(CLASSES, (count,), generator=torch.Generator().manual_seed(0))
    tint = F.one_hot(label, CLASSES)[:, :, None, None].float()
    mask = torch.zeros(count, 1, 16, 16)
    mask[..., 5:11, 5:11] = 1
    noise = torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return 0.5 * noise + tint * torch.where(mask > 0, 0.4, 0.5), label, mask


def loader(count: int = 96) -> DataLoader:
    """Batches of 32 triples."""
    return DataLoader(list(zip(*draw(count), strict=True)), batch_size=32)


def network() -> nn.Sequential:
    """A small classifier."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, CLASSES)
    )


def colour_decides(model: nn.Module) -> float:
    """Share of images that keep their prediction when every background becomes grey."""
    image, _, mask = draw(300)
    with torch.no_grad():
        same = model(image).argmax(1) == model(torch.where(mask > 0, image, 0.5)).argmax(1)
    return float(same.float().mean())
