"""The small network of the reference vectors, and images for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Plain(nn.Module):
    """The reference's small network, written with functional, in-place and method activations on purpose."""

    def __init__(self, classes: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, classes)
        self.bn1, self.bn2 = (nn.BatchNorm2d(6), nn.BatchNorm2d(12)) if norm else (nn.Identity(), nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(F.max_pool2d(x, 2).mean((2, 3)))


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected).norm() / expected.norm())


def small(norm: bool = True, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Plain(5, norm)


def picture(batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, 12, 10, generator=torch.Generator().manual_seed(1))
