"""What is measured on a GPU, a function a part: each returns rows of figures with their goals.

Called by ``benchmarks/gpu.py``, every part in a process of its own, which imports what that part needs: a package that
is missing costs one part. Without a card the same functions run on the CPU with ``tiny`` sizes: the figures then mean
nothing, but a mistake in the script shows.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import measure_together, synchronise

from torch_bgdebias import evaluate_background_bias
from torch_bgdebias.attribution import kernel_shap
from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.ops import extension_status
from torch_bgdebias.ops.library import composite
from torch_bgdebias.ops.plain import composite_plain
from torch_bgdebias.swap import BackgroundSwap

Row = dict[str, Any]


def row(name: str, figure: float, unit: str, goal: float | None = None, least: bool = False, **more: Any) -> Row:
    """``goal``: the figure is to be at most this, or with ``least`` at least this."""
    reached = None if goal is None else bool(figure >= goal if least else figure <= goal)
    sense = "at least" if least else "at most"
    return {"name": name, "figure": figure, "unit": unit, "goal": goal, "sense": sense, "reached": reached, **more}


def device_time(function: Callable[[], Any], device: torch.device, calls: int) -> float:
    """Milliseconds a call of the device alone: ``calls`` calls in a CUDA graph, so that no launch is in it."""
    if device.type != "cuda":
        return measure_together({"call": function}, device=device, calls=calls, warm_up=1)["call"].median
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            function()
    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        synchronise(device)
        times.append(start.elapsed_time(end) / calls)
    return sorted(times)[len(times) // 2]


def operands(shape: tuple[int, ...], dtype: torch.dtype, bank_dtype: torch.dtype, device: torch.device) -> list[Any]:
    there: dict[str, Any] = {"device": device, "generator": torch.Generator(device).manual_seed(0)}
    batch, channels, height, width = shape
    pixels = torch.randint(0, 256, (min(64, batch), channels, height, width), dtype=torch.uint8, **there)
    return [
        torch.randn(shape, **there).to(dtype),
        torch.rand(batch, 1, height, width, **there).to(dtype),
        pixels if bank_dtype == torch.uint8 else (pixels / 255).to(bank_dtype),
        torch.rand(batch, 8, 2, dtype=torch.float64, **there) * torch.tensor([height, width], device=device),
        torch.randint(len(pixels), (batch, 8), **there),
        torch.randint(min(height, width), (batch, 8, 2), **there),
        torch.full((channels,), 0.45, device=device),
        torch.full((channels,), 0.225, device=device),
    ]


def part_composite(device: torch.device, tiny: bool) -> list[Row]:
    """Share of a copy's bandwidth that the operator reaches, the mask's and the bank's bytes counted too."""
    rows = [row("compiled kernel for this device", float(device.type in extension_status().devices), "", 1, True)]
    shapes = [(2, 3, 16, 16)] if tiny else [(64, 3, 224, 224), (256, 3, 384, 384)]
    kinds = [
        (torch.float32, torch.uint8), (torch.float32, torch.float32),
        (torch.bfloat16, torch.uint8), (torch.bfloat16, torch.bfloat16),
    ]  # fmt: skip
    for shape in shapes:
        for dtype, bank_dtype in kinds:
            inputs = operands(shape, dtype, bank_dtype, device)
            few = [x[:4] if i in (0, 1, 3, 4, 5) else x for i, x in enumerate(inputs)]
            plain = composite_plain(*(x.cpu() for x in few))
            same = torch.equal(composite(*few).cpu(), plain)
            image = inputs[0]
            copy = device_time(image.clone, device, 20)
            ours = device_time(lambda inputs=inputs: composite(*inputs), device, 20)
            copied = 2 * image.nbytes
            moved = copied + inputs[1].nbytes + image.numel() * inputs[2].element_size()
            share = 100 * (moved / ours) / (copied / copy)
            name = f"composite {'x'.join(map(str, shape))} {dtype}, bank {bank_dtype}".replace("torch.", "")
            details = {"milliseconds": ours, "copy_ms": copy, "copy_gb_s": copied / copy / 1e6, "equal_to_plain": same}
            rows.append(row(name, share, "% of a copy's bandwidth", 85, True, **details))
            rows.append(row(f"{name}: bits as the plain kernel's", float(same), "", 1, True))
    return rows


def network(name: str, device: torch.device, tiny: bool) -> tuple[nn.Module, int, int]:
    """The model, its input's size and a batch."""
    torch.manual_seed(0)
    if tiny:
        return torchvision.models.resnet18(num_classes=9).to(device), 32, 2
    return torchvision.models.get_model(name, weights=None, num_classes=9).to(device), 224, 64


def training_step(
    model: nn.Module, image: Tensor, label: Tensor, before: Callable[[Tensor], Tensor] | None = None
) -> Callable[[], None]:
    """A step in bfloat16, of the images as they are or as ``before`` makes them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16):
            F.cross_entropy(model(image if before is None else before(image)), label).backward()
        optimizer.step()

    return step


def swaps(size: int, device: torch.device, tiny: bool) -> dict[str, BackgroundSwap]:
    count = 8 if tiny else 512
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    bank = BackgroundBank(images, torch.arange(count) % 9).to(device)
    return {"bank, voronoi": BackgroundSwap(bank, "voronoi"), "bank, paste": BackgroundSwap(bank, "paste"),
            "batch, voronoi": BackgroundSwap("batch", "voronoi")}  # fmt: skip


def part_swap(device: torch.device, tiny: bool) -> list[Row]:
    """The swap as a share of a ResNet-50 step in bfloat16."""
    model, size, batch = network("resnet50", device, tiny)
    image, label = torch.rand(batch, 3, size, size, device=device), torch.arange(batch, device=device) % 9
    mask = torch.zeros(batch, 1, size, size, device=device)
    mask[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    functions: dict[str, Callable[[], Any]] = {"step": training_step(model, image, label)}
    made = swaps(size, device, tiny)
    for name, swap in made.items():
        functions[name] = lambda swap=swap: swap(image, mask, label)
    main = made["bank, voronoi"]
    functions["both"] = training_step(model, image, label, lambda image: main(image, mask, label)[0])
    timings = measure_together(functions, device=device, calls=2 if tiny else 20)
    step, both = timings.pop("step").median, timings.pop("both").median
    return [
        row("a ResNet-50 step is longer with the swap (bank, voronoi)", 100 * (both / step - 1), "% of the step"),
        *(
            row(f"swap ({name}) in a ResNet-50 step", 100 * timing.median / step, "% of the step",
                1.0 if name == "bank, voronoi" else None, milliseconds=timing.median, step_ms=step)
            for name, timing in timings.items()
        ),
    ]  # fmt: skip


def part_isnet(device: torch.device, tiny: bool) -> list[Row]:
    """A step with heatmaps beside a plain one."""
    import bench_isnet

    rows = []
    models = ["resnet18"] if tiny else ["resnet50", "vit_b_16"]
    for name in models:
        for autocast in (torch.bfloat16, None):
            size, batch = (32, 2) if tiny else (224, 32)
            functions = bench_isnet.steps(name, size, 9, batch, device, autocast)
            chosen = {key: functions[key] for key in ("plain", "selective", "stochastic")}
            timings = measure_together(chosen, device=device, calls=2 if tiny else 10, warm_up=1 if tiny else 3)
            plain = timings["plain"].median
            for variant in ("selective", "stochastic"):
                precision = "bf16" if autocast else "float32"
                more = {"milliseconds": timings[variant].median, "plain_ms": plain, "batch": batch}
                ratio = timings[variant].median / plain
                rows.append(row(f"ISNet {variant}, {name}, {precision}", ratio, "x a plain step", 2.4, **more))
            del functions, chosen
    return rows


def part_clad(device: torch.device, tiny: bool) -> list[Row]:
    """Loss, queue and gradients of 64 embeddings of 2048."""
    import bench_clad

    words = ["--device", device.type] + (["--batch", "4", "--dim", "8", "--negatives", "2"] if tiny else [])
    timed, _, _ = bench_clad.functions(bench_clad.parse(words))
    step = timed["CLADLoss"]
    timing = measure_together({"step": step}, device=device, calls=5 if tiny else 50)["step"]
    return [row("CLAD loss with queue, both directions", timing.median, "ms", 0.2, quartiles=[timing.low, timing.high])]


def part_kernel_shap(device: torch.device, tiny: bool) -> list[Row]:
    """A batch explained at once beside captum, image by image with 256 coalitions a pass."""
    import bench_kernel_shap

    model, size, _ = network("resnet50", device, tiny)
    model.eval()
    batch, samples = (2, 400) if tiny else (32, 1000)
    image = torch.rand(batch, 3, size, size, device=device)

    def ours(image: Tensor) -> None:
        kernel_shap(model, image, 0, samples=samples).values.sum().item()

    ours(image[:2])  # warm-up
    seconds = bench_kernel_shap.seconds(lambda: ours(image))
    rows = [row(f"KernelSHAP of {batch} images", seconds, "s", samples=samples)]
    for per_pass, goal in ((1, 10.0), (256, None)):
        name = f"KernelSHAP beside captum, {per_pass} a pass"
        try:
            theirs = batch * bench_kernel_shap.captum_seconds(model, image[:1], samples, per_pass)
        except (ImportError, ValueError) as error:  # captum says so where scikit-learn is not there
            rows.append(row(name, float("nan"), f"not measured: {error}"))
        else:
            rows.append(row(name, theirs / seconds, "x", goal, True, captum_seconds=theirs))
    return rows


def part_evaluation(device: torch.device, tiny: bool) -> list[Row]:
    """Noise-or-Signal evaluation of ResNet-50; measured on fewer images and scaled to 50,000."""
    model, size, batch = network("resnet50", device, tiny)
    count = 18 if tiny else 2048
    image = torch.rand(count, 3, size, size)
    mask = torch.zeros(count, 1, size, size)
    mask[:, :, size // 4 : -size // 4, size // 4 : -size // 4] = 1
    loader = DataLoader(TensorDataset(image, torch.arange(count) % 9, mask), batch_size=batch)
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        evaluate_background_bias(model, loader)
        speed = count / (time.perf_counter() - start)
    return [
        row("evaluation of 50,000 images", 50_000 / speed, "s (scaled)", measured_images=count, images_a_second=speed)
    ]


def part_compile(device: torch.device, tiny: bool) -> list[Row]:
    """``torch.compile`` of the swap with drawn parameters: as without, and how fast."""
    size, batch = (32, 2) if tiny else (224, 64)
    swap = swaps(size, device, tiny)["bank, voronoi"]
    image, label = torch.rand(batch, 3, size, size, device=device), torch.arange(batch, device=device) % 9
    mask = torch.rand(batch, 1, size, size, device=device)
    params = swap.generate_parameters(image.shape, label)

    def blend() -> Tensor:
        return swap(image, mask, label, params=params)[0]

    compiled = torch.compile(blend)
    difference = float((compiled() - blend()).abs().max())
    timings = measure_together({"eager": blend, "compiled": compiled}, device=device, calls=2 if tiny else 20)
    eager, fast = timings["eager"].median, timings["compiled"].median
    return [row("compiled swap: largest difference", difference, "", 1e-5),
            row("compiled swap beside eager", fast / eager, "x", milliseconds=fast, eager_ms=eager)]  # fmt: skip


def part_graph(device: torch.device, tiny: bool) -> list[Row]:
    """The swap of drawn parameters captured in a CUDA graph and replayed with other images."""
    if device.type != "cuda":
        return [row("CUDA graph of the swap", 0.0, "not here: no CUDA")]
    swap = swaps(64, device, True)["bank, voronoi"]
    image, mask = torch.rand(8, 3, 64, 64, device=device), torch.rand(8, 1, 64, 64, device=device)
    label = torch.arange(8, device=device)
    params = swap.generate_parameters(image.shape, label)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            swap(image, mask, params=params)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        swapped = swap(image, mask, params=params)[0]
    image.copy_(torch.rand_like(image))
    graph.replay()
    synchronise(device)
    difference = float((swapped - swap(image, mask, params=params)[0]).abs().max())
    return [row("CUDA graph of the swap: largest difference", difference, "", 1e-5)]


PARTS: dict[str, Callable[[torch.device, bool], list[Row]]] = {
    "composite": part_composite,
    "swap": part_swap,
    "isnet": part_isnet,
    "clad": part_clad,
    "kernel_shap": part_kernel_shap,
    "evaluation": part_evaluation,
    "compile": part_compile,
    "graph": part_graph,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rows = PARTS[args.part](torch.device(args.device), args.tiny)
    args.out.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
