"""Concept vectors of a layer: all in one batched optimisation, beside one concept after another with the plain formula.

python benchmarks/bench_concepts.py
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.concepts import fit_concepts


def plain(activations: Tensor, masks: Tensor, epochs: int, lr: float) -> Tensor:
    """One concept: every channel is resized, autograd and torch.optim do the rest."""
    vector = torch.zeros(activations.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([vector], lr=lr)
    alpha = 1 - masks.mean((1, 2), keepdim=True)
    weight = alpha * masks + (1 - alpha) * (1 - masks)
    for _ in range(epochs):
        large = F.interpolate(activations, size=masks.shape[1:], mode="bilinear", align_corners=False)
        scores = torch.einsum("c,nchw->nhw", vector, large)
        loss = (weight * F.binary_cross_entropy_with_logits(scores, masks, reduction="none")).sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vector.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--map", type=int, default=14)
    parser.add_argument("--plain-concepts", type=int, default=2, help="how many the plain formula fits; scaled up")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    samples = args.concepts * args.images
    activations = torch.randn(samples, args.channels, args.map, args.map, generator=generator)
    masks = F.interpolate((activations[:, :1] > 0.5).float(), size=(80, 80))[:, 0]
    group = torch.arange(samples) // args.images
    fit_concepts(activations[: args.images], masks[: args.images], epochs=2)  # warm-up
    start = time.perf_counter()
    together = fit_concepts(activations, masks, group=group, chunk=512)
    ours = time.perf_counter() - start
    start = time.perf_counter()
    for c in range(args.plain_concepts):
        alone = plain(activations[group == c], masks[group == c], 30, 0.1)
        error = float((alone - together[c]).norm() / alone.norm())
        print(f"concept {c}: relative difference {error:.1e}")
    theirs = (time.perf_counter() - start) / args.plain_concepts * args.concepts
    print(
        f"{args.concepts} concepts x {args.images} images, {args.channels} channels at {args.map} x {args.map}: ",
        end="",
    )
    print(f"plain {theirs:.1f} s, batched {ours:.1f} s: {theirs / ours:.1f} x; torch {torch.__version__}")


if __name__ == "__main__":
    main()
