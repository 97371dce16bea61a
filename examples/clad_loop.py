"""CLAD in a plain training loop, on random data: seconds on a CPU. python examples/clad_loop.py

The images are noise with a coloured square (the object, its colour is the class) on a tinted background (its tint goes
with the class too). Printed: the accuracy on backgrounds as in training, and on backgrounds of any class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torch_bgdebias import CLADLoss
from torch_bgdebias.swap import BackgroundSwap

CLASSES, STEPS, BATCH = 3, 150, 48


def draw(count: int, background: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Images (B, 3, 16, 16), labels and masks; backgrounds tinted by the label unless they are given."""
    label = torch.randint(CLASSES, (count,))
    tint = F.one_hot(label if background is None else background, CLASSES)[:, :, None, None]
    colour = F.one_hot(label, CLASSES)[:, :, None, None]
    mask = torch.zeros(count, 1, 16, 16)
    mask[..., 5:11, 5:11] = 1
    image = 0.5 * torch.rand(count, 3, 16, 16) + torch.where(mask > 0, 0.4 * colour, 0.5 * tint)
    return image, label, mask


def train(with_clad: bool) -> None:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(256, 32), nn.ReLU()
    )
    head = nn.Linear(32, CLASSES)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=3e-3)
    swap, clad = BackgroundSwap("batch", different_class=True), CLADLoss(CLASSES)
    for _ in range(STEPS):
        image, label, mask = draw(BATCH)
        embedding = body(image)
        loss = F.cross_entropy(head(embedding), label)
        if with_clad:
            other = swap(image, mask, label)[0]
            positive = body(other)
            loss = loss + clad(embedding, positive, label, swap.drawn["background_label"])
            loss = loss + F.cross_entropy(head(positive), label)  # CLAD+
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    name = "CLAD+" if with_clad else "plain"
    with torch.no_grad():
        for where, background in (("own", None), ("any", torch.randint(CLASSES, (1000,)))):
            image, label, _ = draw(1000, background)
            right = (head(body(image)).argmax(1) == label).float().mean()
            print(f"{name:6s} {where} background: {100 * float(right):.1f} %")


if __name__ == "__main__":
    train(with_clad=False)
    train(with_clad=True)
