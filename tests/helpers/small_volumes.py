"""Small volumes with a cuboid in front, and a network of every kind of 3D layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: depth, height and width, which differ so that none is taken for another
SIZE = (6, 8, 10)


def volumes(count: int = 12, classes: int = 3, channels: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Random volumes (N, C, 6, 8, 10), labels (N,) and masks (N, 1, 6, 8, 10) of one cuboid."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(count, 1, *SIZE)
    mask[:, :, 2:4, 2:6, 3:7] = 1
    return torch.rand(count, channels, *SIZE, generator=generator), torch.arange(count) % classes, mask


def network(classes: int = 3, channels: int = 2, seed: int = 0) -> nn.Sequential:
    """Convolution, batch norm that does something, maximum, average and adaptive pooling."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm3d(4)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.3)
    return nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1), norm, nn.ReLU(), nn.MaxPool3d((1, 2, 2)),
        nn.Conv3d(4, 5, 3, padding=1), nn.ReLU(inplace=True), nn.AvgPool3d(2), nn.AdaptiveAvgPool3d((1, 1, 2)),
        nn.Flatten(), nn.Linear(10, classes),
    )  # fmt: skip
