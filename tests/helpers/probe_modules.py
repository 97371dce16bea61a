"""LightningModules of people who never heard of the probe, and a short training with callbacks."""

from __future__ import annotations

import small_training
import torch
from probe_toy import K, ToyImages, cheat
from small_training import Module
from torch import nn
from torch.utils.data import DataLoader


class Plain(Module):
    """Somebody's classifier: batch norm, dropout, tuple batches; it has never heard of the probe."""

    def __init__(self, **options) -> None:
        super().__init__(
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)), **options
        )
        self.head = nn.Linear(8 * 8 * 8, K)

    def forward(self, image):
        return self.head(self.net(image))


class Dicts(Plain):
    def __init__(self) -> None:
        super().__init__(image="pixels", label="y")


class Cheat(Plain):
    """Validates as a model that reads the background; training changes nothing that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = cheat()
        self.head = None
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.reader(image)

    def training_step(self, batch, batch_idx):
        return self.weight.square()


def fit(module, *callbacks, epochs: int = 2, kind: str = "tuple", val=None, **options):
    """On toy images; validated on others."""
    torch.manual_seed(0)
    train = DataLoader(ToyImages(32, seed=1, kind=kind), batch_size=8, shuffle=True)
    val = DataLoader(ToyImages(40, kind=kind), batch_size=7) if val is None else val
    return small_training.fit(module, *callbacks, train=train, val=val, max_epochs=epochs, **options)
