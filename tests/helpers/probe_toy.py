"""Images whose background tells the class, a model that reads the background and one that reads the object."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from torch_bgdebias.probe import BackgroundBiasReport

K, SIDE = 4, 10


class ToyImages(Dataset):
    """Channel 0 of the background and channel 1 of the object hold class / 10; channel 2 tells images apart."""

    def __init__(self, n: int = 40, *, classes: int = K, seed: int = 0, kind: str = "tuple") -> None:
        g = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(n) % classes
        self.images = torch.zeros(n, 3, SIDE, SIDE)
        self.images[:, 0] = (self.labels / 10)[:, None, None]
        self.images[:, 2] = torch.rand(n, SIDE, SIDE, generator=g) * 0.1
        self.masks = torch.zeros(n, 1, SIDE, SIDE)
        self.masks[:, :, 3:7, 3:8] = 1
        inside = self.masks[:, 0].bool()
        for i in range(n):
            self.images[i, 0][inside[i]] = 0.9
            self.images[i, 1][inside[i]] = float(self.labels[i]) / 10
        self.kind = kind

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int):
        if self.kind == "dict":
            return {"pixels": self.images[i], "y": self.labels[i], "seg": self.masks[i], "name": f"{i}.png"}
        return self.images[i], self.labels[i], self.masks[i]


class Reader(nn.Module):
    """Reads one pixel of one channel as the class; its embedding is the one-hot class, its head the identity."""

    def __init__(self, channel: int, row: int, column: int, classes: int = K) -> None:
        super().__init__()
        self.at, self.classes = (channel, row, column), classes
        self.norm = nn.BatchNorm1d(classes)
        self.head = nn.Linear(classes, classes, bias=False)
        self.head.weight.data = 8 * torch.eye(classes)

    def forward(self, image: Tensor) -> Tensor:
        channel, row, column = self.at
        seen = (image[:, channel, row, column] * 10).round().long().clamp(0, self.classes - 1)
        return self.head(self.norm(F.one_hot(seen, self.classes).float()))


def cheat() -> Reader:
    """Reads the background's colour in a corner."""
    return Reader(0, 0, 0)


def honest() -> Reader:
    """Reads the object's colour in the middle."""
    return Reader(1, 5, 5)


def toy_loader(n: int = 40, batch_size: int = 7, **kwargs) -> DataLoader:
    """Toy images in batches, the last one smaller."""
    return DataLoader(ToyImages(n, **kwargs), batch_size=batch_size)


def same_images(a: BackgroundBiasReport, b: BackgroundBiasReport, *, but: tuple[str, ...] = ()) -> None:
    """Both reports hold the same results of the same images."""
    one, two = a.to_dict()["images"], b.to_dict()["images"]
    assert {k: v for k, v in one.items() if k not in but} == {k: v for k, v in two.items() if k not in but}
