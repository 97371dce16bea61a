"""Images whose object and background each hold a set of labels, and models that read one or the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

LABELS = 3


def label_sets(n: int, *, seed: int = 0) -> Tensor:
    """(n, 3) of 0 and 1, each label in about half of the images; every set occurs more than once in 40."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, LABELS, generator=generator) < 0.5).long()


def set_images(targets: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 3, 10, 10) and masks: channel l is 0.5 or more where label l is there, in the object and around it."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(len(targets), 3, 10, 10, generator=generator) * 0.1
    mask = torch.zeros(len(targets), 1, 10, 10)
    mask[:, :, 3:7, 3:8] = 1
    return image + 0.5 * targets[:, :, None, None], mask


def set_loader(targets: Tensor, label: Tensor | None = None, **options) -> DataLoader:
    """Batches of 7 of such images, with ``label`` in place of the sets where given."""
    image, mask = set_images(targets)
    return DataLoader(TensorDataset(image, targets if label is None else label, mask), batch_size=7, **options)


class SetReader(nn.Module):
    """A logit a label: 10 times the pixel in the corner (background) or in the middle (object), less 3."""

    def __init__(self, *, corner: bool, outputs: int = LABELS, sigmoid: bool = False) -> None:
        super().__init__()
        self.at, self.sigmoid = (0, 0) if corner else (5, 5), sigmoid
        self.head = nn.Linear(LABELS, outputs)
        with torch.no_grad():
            self.head.weight.copy_(10 * torch.eye(LABELS)[:outputs])
            self.head.bias.fill_(-3)

    def forward(self, image: Tensor) -> Tensor:
        logits = self.head(image[:, :, self.at[0], self.at[1]])
        return logits.sigmoid() if self.sigmoid else logits
