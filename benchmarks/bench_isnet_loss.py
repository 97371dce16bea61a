"""What does the heatmap loss cost beside a copy of the heatmaps? Median of repeats, loss and gradient together.

    python benchmarks/bench_isnet_loss.py [--device cuda]

Floor: the relevance is read twice (background, foreground) and its gradient written once, 3 x its bytes over the copy's
bandwidth (a copy moves 2 x). "sort" is the rank pool by a full sort, as the original implementation does it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from torch_bgdebias.isnet import heatmap_loss
from torch_bgdebias.isnet.functional import rank_pool


def measure(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median milliseconds after two warm-up calls."""
    times = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if repeat >= 2:
            times.append(1e3 * (time.perf_counter() - start))
    return median(times)


def full_sort(values: Tensor, decay: float) -> Tensor:
    weights = decay ** torch.arange(values.shape[-1], device=values.device, dtype=values.dtype)
    return (values.sort(-1, descending=True).values * weights).sum(-1) / weights.sum()


def row(relevance: Tensor, mask: Tensor, decay: float, repeats: int) -> dict[str, float]:
    device, values = relevance.device, relevance.detach().abs().flatten(3)
    works: dict[str, Callable[[], object]] = {
        "loss_and_gradient_ms": lambda: torch.autograd.grad(heatmap_loss(relevance, mask, rank_decay=decay), relevance),
        "rank_pool_ms": lambda: rank_pool(values, decay),
        "full_sort_ms": lambda: full_sort(values, decay),
        "copy_ms": values.clone,
    }
    times = {name: measure(work, device, repeats) for name, work in works.items()}
    times["floor_ms"] = 1.5 * times.pop("copy_ms")
    return {name: round(value, 2) for name, value in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    generator = torch.Generator(args.device).manual_seed(0)
    for side in (64, 224):
        shape = (args.batch, 1, 3, side, side)
        relevance = torch.randn(shape, device=args.device, generator=generator).requires_grad_()
        mask = torch.zeros(args.batch, 1, side, side, device=args.device)
        mask[:, :, side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
        for decay in (0.9, 0.996, 1.0):
            print(json.dumps({"side": side, "rank_decay": decay, **row(relevance, mask, decay, args.repeats)}))


if __name__ == "__main__":
    main()
