"""CLAD's queue and loss, beside a loop over samples and classes with queues as lists.

python benchmarks/bench_clad.py

Times one step (enqueue, loss, gradients to both embeddings) at the size of ImageNet-9 with ResNet-50, beside the
products of all anchors with all rows, forwards and backwards: what a step without any look at the labels would cost.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from common import machine, measure_together, write_json
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


def functions(args: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[..., Tensor]], Any]:
    """What is timed, the losses behind it, and their inputs; all queues are full and equal."""
    device = torch.device(args.device)
    generator = torch.Generator().manual_seed(0)
    anchor, positive = (torch.randn(args.batch, args.dim, generator=generator).to(device) for _ in range(2))
    label = torch.randint(args.classes, (args.batch,), generator=generator)
    background = (label + torch.randint(1, args.classes, (args.batch,), generator=generator)) % args.classes
    inputs = (anchor.requires_grad_(), positive.requires_grad_(), label.to(device), background.to(device))
    rows = torch.randn(args.classes * args.negatives, args.dim, generator=generator).to(device)
    keys = torch.arange(args.classes).repeat(args.negatives)
    ours = CLADLoss(args.classes, args.dim, args.negatives).to(device)
    ours.queue.enqueue(rows, keys.to(device))
    losses: dict[str, Callable[..., Tensor]] = {"CLADLoss": ours}
    for name, kind in (("loop over anchors", LoopCLAD), ("loop over slots", SlotCLAD)):
        loop = kind(args.classes, args.negatives, 0.2)
        for row, key in zip(rows, keys.tolist(), strict=True):
            loop.queues[key].append(row)
        losses[name] = loop

    def floor() -> Tensor:
        return (anchor.detach() @ rows.T) @ rows

    steps = {name: stepping(loss, inputs) for name, loss in losses.items()}
    return {"two products with all rows": floor, **steps}, losses, inputs


def stepping(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        for x in inputs[:2]:
            x.grad = None
        loss(*inputs).backward()

    return step


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--negatives", type=int, default=32)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--calls", type=int, default=50)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    args = parse()
    device = torch.device(args.device)
    timed, losses, inputs = functions(args)
    first = {name: float(loss(*inputs).detach()) for name, loss in losses.items()}
    print("loss of the first batch:", ", ".join(f"{name} {value:.6f}" for name, value in first.items()))
    timings = measure_together(timed, device=device, calls=args.calls)
    print(", ".join(f"{key} {value}" for key, value in machine(device).items()))
    print(f"B {args.batch}, D {args.dim}, N {args.negatives}, K {args.classes}, float32\n")
    print("| step | median ms | quartiles | best | median to CLADLoss | best to CLADLoss |")
    print("| --- | --- | --- | --- | --- | --- |")
    ours = timings["CLADLoss"]
    for name, t in timings.items():
        ratios = f"{t.median / ours.median:.1f} | {t.best / ours.best:.1f}"
        print(f"| {name} | {t.median:.2f} | {t.low:.2f}-{t.high:.2f} | {t.best:.2f} | {ratios} |")
    print("\none after the other, each called again and again, so that it finds its own data in the caches:\n")
    print("| | median ms | best |")
    print("| --- | --- | --- |")
    alone = {name: timed[name] for name in losses}
    alone |= {f"{name}, no backward": partial(loss, *inputs) for name, loss in losses.items()}
    for name, step in alone.items():
        t = measure_together({name: step}, device=device, calls=args.calls)[name]
        print(f"| {name} | {t.median:.2f} | {t.best:.2f} |")
    for name, loss in losses.items():
        print(f"kept for the backward pass, {name}: {saved_bytes(loss, inputs) / 2**20:.1f} MiB")
    if args.json:
        write_json(args.json, {**vars(args), "json": str(args.json)}, timings, device)


@pytest.mark.parametrize("name", ["two products with all rows", "CLADLoss", "loop over anchors", "loop over slots"])
def test_clad(benchmark: Any, name: str) -> None:
    benchmark(functions(parse([]))[0][name])


if __name__ == "__main__":
    main()
