"""CLAD written from the paper with loops and lists: the second opinion of the tests."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor


def cosine(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum() / (x.square().sum().sqrt() * y.square().sum().sqrt())


def loss_of_one(anchor: Tensor, positive: Tensor, negatives: list[Tensor], temperature: float) -> Tensor:
    own = torch.exp(cosine(anchor, positive) / temperature)
    others = sum((torch.exp(cosine(anchor, n) / temperature) for n in negatives), torch.zeros((), dtype=anchor.dtype))
    return -torch.log(own / (own + others))


class LoopCLAD:
    """A list per class; in the order of the batch, positives in, oldest out; then the loss, sample by sample."""

    def __init__(self, num_classes: int, size: int, temperature: float = 0.2) -> None:
        self.queues = [deque(maxlen=size) for _ in range(num_classes)]
        self.temperature = temperature

    def __call__(self, anchor: Tensor, positive: Tensor, label: Tensor, background_label: Tensor) -> Tensor:
        for row, background in zip(positive.detach().clone(), background_label.tolist(), strict=True):
            if background >= 0:
                self.queues[background].append(row)
        losses = [
            loss_of_one(a, p, list(self.queues[c]), self.temperature)
            for a, p, c in zip(anchor, positive, label.tolist(), strict=True)
        ]
        return sum(losses, torch.zeros((), dtype=anchor.dtype)) / len(losses)


def log1p_exp(x: float) -> float:
    return math.log1p(math.exp(x))
