"""A classifier of backgrounds for the whole room."""

from __future__ import annotations

import pytest
import torch
from four_kinds import pictures
from torch import nn
from torch.nn.functional import cross_entropy


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Trained until it tells the four kinds of new pictures apart."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    image, label = pictures(100, 1)
    for step in range(150):
        pick = torch.randint(len(label), (64,), generator=torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        cross_entropy(model(image[pick].float() / 255), label[pick]).backward()
        optimiser.step()
    model.train()  # the filter must not rely on evaluation mode
    return model
