"""Small networks: that of the reference vectors with images for it, and one whose maps keep their size."""

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


def distance(values: Tensor, expected: Tensor) -> float:
    return float((values.detach() - expected).norm() / expected.norm())


def small(norm: bool = True, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Plain(5, norm)


def picture(batch: int = 3) -> Tensor:
    return torch.rand(batch, 3, 12, 10, generator=torch.Generator().manual_seed(1))


class Small(nn.Module):
    """Convolutions with batch norms that do something, and activations in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)
        for norm in (self.bn1, self.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.fc(F.relu(self.bn2(self.conv2(x)), inplace=True).mean((2, 3)))
