"""Small pictures of four kinds, for classifiers of backgrounds."""

from __future__ import annotations

import torch

NAMES = ["plain", "square", "bar", "cross"]


def pictures(n_per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise of 16 x 16, with nothing, a square, a bar or a cross of one bright colour at a random place."""
    g = torch.Generator().manual_seed(seed)
    label = torch.arange(4).repeat_interleave(n_per_class)
    image = torch.rand(len(label), 3, 16, 16, generator=g) * 0.3
    for one, kind in zip(image, label.tolist(), strict=True):
        y, x = (int(v) for v in torch.randint(1, 9, (2,), generator=g))
        if kind == 1:
            one[:, y : y + 6, x : x + 6] = 1
        elif kind == 2:
            one[:, y : y + 2, :] = 1
        elif kind == 3:
            one[:, y + 2 : y + 4, :] = 1
            one[:, :, x + 2 : x + 4] = 1
    return (image * 255).round().to(torch.uint8), label
