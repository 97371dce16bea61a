"""What several experiments need."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_bgdebias.backgrounds import BackgroundBank


def accuracy(model: nn.Module, image: Tensor, label: Tensor) -> float:
    """Percent of the images whose largest logit is the label's, in evaluation mode."""
    model.eval()
    with torch.inference_mode():
        right = [model(x).argmax(1) == y for x, y in zip(image.split(500), label.split(500), strict=True)]
    return 100 * float(torch.cat(right).float().mean())


def split_bank(bank: BackgroundBank, test: float = 0.25) -> tuple[BackgroundBank, BackgroundBank]:
    """A bank for training and one of the last quarter of every category for the tests."""
    assert bank.labels is not None
    held_out = torch.zeros(len(bank), dtype=torch.bool)
    for category in range(bank.num_classes):
        members = (bank.labels == category).nonzero().flatten()
        held_out[members[int(len(members) * (1 - test)) :]] = True
    return bank.subset(~held_out), bank.subset(held_out)
