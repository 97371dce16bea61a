"""CLAD's queue and loss, beside a loop over samples and classes with queues as lists.

python benchmarks/bench_clad.py

Times one step (enqueue, loss, gradients to both embeddings) at the size of ImageNet-9 with ResNet-50, checks that both
give the same loss, and prints the floor: the products of all anchors with all rows, forwards and backwards.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from torch_bgdebias.clad import CLADLoss


class LoopCLAD:
    """Plain: every positive into its class's list, every anchor against every negative one by one."""

    def __init__(self, classes: int, size: int, temperature: float) -> None:
        self.queues: list[deque[Tensor]] = [deque(maxlen=size) for _ in range(classes)]
        self.temperature = temperature

    def __call__(self, anchor: Tensor, positive: Tensor, label: Tensor, background_label: Tensor) -> Tensor:
        for row, background in zip(positive.detach(), background_label.tolist(), strict=True):
            self.queues[background].append(row.clone())
        own = torch.exp(F.cosine_similarity(anchor, positive) / self.temperature)
        losses = []
        for i, c in enumerate(label.tolist()):
            rows = torch.stack(list(self.queues[c]))
            others = torch.exp(F.cosine_similarity(anchor[i : i + 1], rows) / self.temperature).sum()
            losses.append(-torch.log(own[i] / (own[i] + others)))
        return torch.stack(losses).mean()


class SlotCLAD(LoopCLAD):
    """As research code does it: one cosine similarity of the batch for each slot of the queue."""

    def __call__(self, anchor: Tensor, positive: Tensor, label: Tensor, background_label: Tensor) -> Tensor:
        for row, background in zip(positive.detach(), background_label.tolist(), strict=True):
            self.queues[background].append(row.clone())
        total = own = torch.exp(F.cosine_similarity(anchor, positive) / self.temperature)
        classes = label.tolist()
        for slot in range(self.queues[0].maxlen or 0):
            rows = torch.stack([self.queues[c][slot] for c in classes])
            total = total + torch.exp(F.cosine_similarity(anchor, rows) / self.temperature)
        return -torch.log(own / total).mean()


def measure(step: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median, minimum and 90th percentile in milliseconds, after a warm-up."""
    for _ in range(max(3, repeats // 10)):
        step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - start))
    times.sort()
    return statistics.median(times), times[0], times[int(0.9 * len(times))]


def saved_bytes(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> int:
    """What autograd keeps between forward and backward pass, each storage once, the inputs left out."""
    storages: dict[int, int] = {}
    known = {x.untyped_storage().data_ptr() for x in inputs}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        value = loss(*inputs)
    total = sum(storages.values())
    value.backward()
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--negatives", type=int, default=32)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    anchor, positive = (torch.randn(args.batch, args.dim, generator=generator, requires_grad=True) for _ in range(2))
    label = torch.randint(args.classes, (args.batch,), generator=generator)
    background = (label + torch.randint(1, args.classes, (args.batch,), generator=generator)) % args.classes
    inputs = (anchor, positive, label, background)
    losses = {
        "CLADLoss": CLADLoss(args.classes, args.dim, args.negatives),
        "loop over anchors": LoopCLAD(args.classes, args.negatives, 0.2),
        "loop over slots": SlotCLAD(args.classes, args.negatives, 0.2),
    }
    rows = torch.randn(args.classes * args.negatives, args.dim, generator=generator)
    keys = torch.arange(args.classes).repeat(args.negatives)
    with torch.no_grad():
        for loss in losses.values():  # all queues full and equal
            enqueue = loss.queue.enqueue if isinstance(loss, CLADLoss) else None
            if enqueue is not None:
                enqueue(rows, keys)
            else:
                for row, key in zip(rows, keys.tolist(), strict=True):
                    loss.queues[key].append(row)
    first = {name: float(loss(*inputs).detach()) for name, loss in losses.items()}
    print("loss:", ", ".join(f"{name} {value:.6f}" for name, value in first.items()))

    flat = rows.clone()

    def floor() -> None:
        scores = anchor.detach() @ flat.T
        scores @ flat

    results = {}
    for name, step in {
        "two matrix products (floor)": floor,
        **{n: stepping(x, inputs) for n, x in losses.items()},
    }.items():
        repeats = args.repeats if "loop" not in name else max(10, args.repeats // 5)
        results[name] = measure(step, repeats)
    ours = results["CLADLoss"][0]
    print(
        f"B {args.batch}, D {args.dim}, N {args.negatives}, K {args.classes}, float32, {platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print("| step | median ms | min ms | p90 ms | to CLADLoss |\n| --- | --- | --- | --- | --- |")
    for name, (median, least, high) in results.items():
        print(f"| {name} | {median:.2f} | {least:.2f} | {high:.2f} | {median / ours:.1f} x |")
    for name, loss in losses.items():
        print(f"kept for the backward pass, {name}: {saved_bytes(loss, inputs) / 2**20:.1f} MiB")
    if args.out:
        args.out.write_text(json.dumps({"settings": vars(args) | {"out": str(args.out)}, "ms": results}, indent=1))


def stepping(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        for x in inputs[:2]:
            x.grad = None
        loss(*inputs).backward()

    return step


if __name__ == "__main__":
    main()
