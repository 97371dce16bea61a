"""Concept vectors of a layer: all in one batched optimisation, beside one concept after another with the plain formula.

python benchmarks/bench_concepts.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.concepts import fit_concepts


def plain(activations: Tensor, masks: Tensor, epochs: int, lr: float, *, keep: bool) -> Tensor:
    """One concept: every channel is resized (once and kept, or in each step), autograd and torch.optim do the rest."""

    def resized() -> Tensor:
        return F.interpolate(activations, size=masks.shape[1:], mode="bilinear", align_corners=False)

    vector = torch.zeros(activations.shape[1], requires_grad=True)
    optimizer = torch.optim.AdamW([vector], lr=lr)
    alpha = 1 - masks.mean((1, 2), keepdim=True)
    weight = alpha * masks + (1 - alpha) * (1 - masks)
    kept = resized() if keep else None
    for _ in range(epochs):
        scores = torch.einsum("c,nchw->nhw", vector, resized() if kept is None else kept)
        loss = (weight * F.binary_cross_entropy_with_logits(scores, masks, reduction="none")).sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return vector.detach()


def seconds(work: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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
    runs = [seconds(lambda: fit_concepts(activations, masks, group=group, chunk=512)) for _ in range(3)]
    ours, together = median(run[0] for run in runs), runs[0][1]
    print(
        f"{args.concepts} concepts x {args.images} images, {args.channels} channels at {args.map} x {args.map}, "
        f"masks 80 x 80, 30 steps; torch {torch.__version__}\nbatched {ours:.2f} s (median of 3)"
    )
    for keep, what in ((False, "resized in each step"), (True, "resized once and kept")):
        spent = 0.0
        for c in range(args.plain_concepts):
            rows = group == c
            one, alone = seconds(partial(plain, activations[rows], masks[rows], 30, 0.1, keep=keep))
            spent += one
            error = float((alone - together[c]).norm() / alone.norm())
        theirs = spent / args.plain_concepts * args.concepts
        print(f"plain, {what}: {theirs:.1f} s, {theirs / ours:.1f} x; relative difference {error:.1e}")


if __name__ == "__main__":
    main()
