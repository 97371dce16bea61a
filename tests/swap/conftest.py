"""A batch and a bank for the room's tests."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank


@pytest.fixture
def batch(generator):
    """Images, soft masks and labels of three classes."""
    image = torch.rand(6, 3, 13, 17, generator=generator)
    mask = torch.zeros(6, 1, 13, 17)
    mask[:, :, 3:9, 4:11] = torch.rand(6, 1, 6, 7, generator=generator)
    return image, mask, torch.tensor([0, 0, 1, 1, 2, 2])


@pytest.fixture
def bank(generator):
    """Backgrounds of three categories in bytes, with the images' normalisation."""
    images = torch.randint(0, 256, (9, 3, 10, 19), dtype=torch.uint8, generator=generator)
    return BackgroundBank(images, torch.arange(9) % 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.2))
