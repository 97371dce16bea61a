"""Faster ISNet in a plain training loop, on drawn images whose class is also written into a corner.

Class 0 is a filled square, class 1 a hollow one, somewhere in the middle of noise. In training a white dot sits in the
upper left corner for class 0 and in the lower right corner for class 1; in the test it is the other way round.

    python examples/isnet_loop.py
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.isnet import BackgroundDimming, ISNet, ISNetLoss


def draw(count: int, generator: torch.Generator, *, wrong: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Images (N, 3, 24, 24), masks (N, 1, 24, 24) and labels (N,)."""
    image = 0.3 * torch.rand(count, 3, 24, 24, generator=generator)
    mask = torch.zeros(count, 1, 24, 24)
    label = torch.randint(2, (count,), generator=generator)
    place = torch.randint(5, 11, (count, 2), generator=generator)
    for i, (y, x) in enumerate(place.tolist()):
        image[i, :, y : y + 8, x : x + 8] += 0.5
        mask[i, :, y : y + 8, x : x + 8] = 1
        if label[i] == 1:
            image[i, :, y + 2 : y + 6, x + 2 : x + 6] -= 0.5
        corner = 0 if (label[i] == 0) != wrong else 21
        image[i, :, corner : corner + 3, corner : corner + 3] = 1
    return image, mask, label


def build() -> nn.Sequential:
    layers = []
    for before, after in ((3, 8), (8, 16)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 36, 2))


def train(net: nn.Module, data: tuple[Tensor, Tensor, Tensor], *, weight: float, epochs: int, variant: str) -> None:
    isnet = ISNet(net, variant=variant, dual_target="contrast")
    heatmap_loss, dimming = ISNetLoss(), BackgroundDimming()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    image, mask, label = data
    for _ in range(epochs):
        for index in torch.randperm(len(image)).split(32):
            if weight == 0:
                loss = F.cross_entropy(net(image[index]), label[index])
            else:
                dimmed = dimming(image[index], mask[index])
                explained = isnet.explain(dimmed)  # one forward pass gives logits and heatmaps
                heatmap = heatmap_loss(explained.relevance, mask[index], explained.hidden)
                loss = (1 - weight) * F.cross_entropy(explained.logits, label[index]) + weight * heatmap
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--variant", choices=("selective", "stochastic", "dual", "original"), default="selective")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    data = draw(args.images, generator)
    tests = {"same corner": draw(500, generator), "other corner": draw(500, generator, wrong=True)}
    for name, weight in (("plain", 0.0), ("isnet", 0.7)):
        torch.manual_seed(0)
        net = build()
        train(net, data, weight=weight, epochs=args.epochs, variant=args.variant)
        net.eval()
        with torch.no_grad():
            scores = {key: (net(image).argmax(1) == label).float().mean() for key, (image, _, label) in tests.items()}
        print(f"{name}: " + ", ".join(f"{key} {100 * score:.1f} %" for key, score in scores.items()))


if __name__ == "__main__":
    main()
