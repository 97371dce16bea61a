"""What does a training step with heatmaps cost beside a plain one?

    python benchmarks/bench_isnet.py [--models resnet18 vgg11] [--sizes 64 224] [--classes 10 1000] [--calls 7]

Plain: forward, cross-entropy, backward, in training mode. With heatmaps: the same, and the heatmap loss, of each
variant. The floor is 2.0: a plain step is three units (forward, gradient to activations, gradient to weights), a
step with heatmaps six (the relevance pass, and its own gradients to the activations and to the weights). Dual needs
more (two heatmaps, and the z+ rule's own forward pass of every layer), original a relevance pass for every class.
All steps run in turns; the ratio is that of the medians. On a shared machine compare the ratios of processor time.
Peak memory is that of a process which does nothing else (CPU), or the allocator's (CUDA), above what it held
before.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from common import machine, measure_together

from torch_bgdebias import ISNet, ISNetLoss

Key = tuple[int, str]  # number of classes, variant
#: "+zbox": with the z^B rule at the first layer
VARIANTS = (
    "plain", "selective", "stochastic", "dual", "original", "selective+zbox", "stochastic+zbox", "dual+zbox"
)  # fmt: skip


def steps(
    name: str, size: int, classes: int, batch: int, device: torch.device, autocast: torch.dtype | None
) -> dict[str, Callable[[], None]]:
    """A training step of each kind, on one model."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, num_classes=classes).to(device)
    image = torch.rand(batch, 3, size, size, device=device)
    label = torch.randint(classes, (batch,), device=device)
    mask = torch.zeros(batch, 1, size, size, device=device)
    mask[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    criterion = ISNetLoss()

    def step(variant: str) -> Callable[[], None]:
        name, _, rule = variant.partition("+")
        isnet = None if name == "plain" else ISNet(model, name, input_rule=rule or "gradient")  # type: ignore[arg-type]

        def run() -> None:
            model.zero_grad()
            with torch.autocast(device.type, autocast or torch.bfloat16, enabled=autocast is not None):
                if isnet is None:
                    loss = F.cross_entropy(model(image), label)
                else:
                    found = isnet.explain(image)
                    loss = F.cross_entropy(found.logits, label) + criterion(found.relevance, mask)
            loss.backward()

        return run

    return {variant: step(variant) for variant in VARIANTS}


def processor_times(functions: dict[Key, Callable[[], None]], calls: int) -> dict[Key, float]:
    """Processor seconds a call, medians of calls in turns."""
    times: dict[Key, list[float]] = {key: [] for key in functions}
    for _ in range(calls):
        for key, function in functions.items():
            start = time.process_time()
            function()
            times[key].append(time.process_time() - start)
    return {key: statistics.median(values) for key, values in times.items()}


def measure(name: str, size: int, options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """One row for each number of classes; the steps of all numbers in turns, so that their ratios compare."""
    batch = options.batch or max(1, 32 * 64 * 64 // size**2 * (2 if size > 64 else 1))
    autocast = getattr(torch, options.autocast) if options.autocast else None
    functions: dict[Key, Callable[[], None]] = {}
    for classes in options.classes:
        wanted = {"plain", *(v for v in options.variants if v != "original" or classes <= 10)}
        made = steps(name, size, classes, batch, device, autocast)
        functions |= {(classes, variant): step for variant, step in made.items() if variant in wanted}
    timings = measure_together(functions, device=device, calls=options.calls, warm_up=1)
    processor = processor_times(functions, max(3, options.calls // 2)) if device.type == "cpu" else {}
    variants = {c: [variant for other, variant in functions if other == c] for c in options.classes}
    del functions, made
    rows = []
    for classes in options.classes:
        plain = timings[classes, "plain"].median
        row: dict[str, Any] = {"model": name, "size": size, "classes": classes, "batch": batch}
        row["plain_ms"] = round(plain, 1)
        row["ratio"] = {v: round(timings[classes, v].median / plain, 2) for v in variants[classes]}
        if processor:
            seconds = processor[classes, "plain"]
            row["processor_ratio"] = {v: round(processor[classes, v] / seconds, 2) for v in variants[classes]}
        if options.memory:
            arguments = (name, size, classes, batch, device, autocast)
            row["peak_mib"] = {v: round(peak(v, *arguments)) for v in variants[classes]}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


def _peak(queue: Any, variant: str, *arguments: Any) -> None:
    function = steps(*arguments)[variant]
    device = arguments[4]
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        function()
        queue.put((torch.cuda.max_memory_allocated(device) - held) / 2**20)
        return
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far; ru_maxrss would be the parent's
    before = _high_water()
    function()
    queue.put(_high_water() - before)


def _high_water() -> float:
    """MiB, the most that this process has held (Linux)."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def peak(variant: str, *arguments: Any) -> float:
    """MiB that a step needs on top, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_peak, args=(queue, variant, *arguments))
    process.start()
    found = float(queue.get())
    process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", default=["resnet18", "vgg11"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224])
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 1000])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--batch", type=int, default=0, help="0: 32 images of 64 pixels, 8 of 224")
    parser.add_argument("--calls", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--autocast", choices=["bfloat16", "float16"])
    parser.add_argument("--memory", action="store_true", help="also the peak memory")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = []
    for name in options.models:
        for size in options.sizes:
            rows += measure(name, size, options, device)
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(device), "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
