"""How far is ``voronoi_composite`` from a copy?

    python benchmarks/bench_voronoi.py                   # CPU: ratio to clone(), target at most 1.2
    python benchmarks/bench_voronoi.py --recycle         # CPU, outputs without page faults
    python benchmarks/bench_voronoi.py --starts 20       # CPU: 20 processes for every number of threads and memory
    python benchmarks/bench_voronoi.py --device cuda     # GPU: share of the copy bandwidth, target at least 85 %
    python -m pytest benchmarks/bench_voronoi.py         # the same functions under pytest-benchmark

The floor is ``clone()`` of the output. The operator also reads the mask and the bank, so the bytes it must move are
printed beside: bytes over (clone's bytes / clone's time) is the time that a perfect kernel would take.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine, measure_together, write_json
from torch_bgdebias.ops import extension_status, voronoi_composite
from torch_bgdebias.ops.plain import composite_plain

Functions = dict[str, Callable[[], Any]]


def inputs(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Made on the CPU with a fixed seed, then moved."""
    g = torch.Generator().manual_seed(0)
    batch, channels, height, width = args.shape
    values = {
        "foreground": torch.randn(args.shape, generator=g).to(getattr(torch, args.dtype)),
        "mask": torch.rand(batch, 1, height, width, generator=g).to(getattr(torch, args.dtype)),
        "bank": torch.randint(0, 256, (args.bank, channels, height, width), generator=g, dtype=torch.uint8),
        "sites": torch.rand(batch, args.cells, 2, generator=g, dtype=torch.float64) * torch.tensor([height, width]),
        "index": torch.randint(args.bank, (batch, args.cells), generator=g),
        "offset": torch.randint(0, min(height, width), (batch, args.cells, 2), generator=g),
        "mean": torch.full((channels,), 0.45),
        "std": torch.full((channels,), 0.225),
    }
    return {name: value.to(args.device) for name, value in values.items()}


def functions(values: dict[str, torch.Tensor], slow: bool = True) -> Functions:
    foreground, mask = values["foreground"], values["mask"]
    background = torch.randn_like(foreground)
    raw = {**values, "mean": None, "std": None}
    chosen: Functions = {
        "clone": foreground.clone,
        "voronoi_composite": lambda: voronoi_composite(**values),
        "voronoi_composite, no mean/std": lambda: voronoi_composite(**raw),
        "paste by torch.lerp": lambda: torch.lerp(background, foreground, mask),
    }
    if slow:
        chosen["plain torch kernel"] = lambda: composite_plain(**values)
    return chosen


def agree(values: dict[str, torch.Tensor]) -> None:
    """Agreement first, time afterwards."""
    few = {name: value if name in ("bank", "mean", "std") else value[:4] for name, value in values.items()}
    if not torch.equal(voronoi_composite(**few), composite_plain(**few)):
        raise SystemExit("the kernels disagree: no timing")


def recycle() -> None:
    """Outputs in memory that the process already has, as in a loop that frees and takes many sizes: no page faults."""
    libc = ctypes.CDLL("libc.so.6")
    for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
        libc.mallopt(option, 2**30)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float64", "float16", "bfloat16"])
    parser.add_argument("--shape", type=int, nargs=4, default=[64, 3, 224, 224], metavar=("B", "C", "H", "W"))
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--bank", type=int, default=256, help="images in the bank")
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument(
        "--plain", action="store_true", help="the plain torch kernel too (slow; what it frees is recycled)"
    )
    parser.add_argument(
        "--recycle", action="store_true", help="keep freed memory in the process (glibc), no fresh pages"
    )
    parser.add_argument("--threads", type=int, help="torch's threads (default: as torch has it)")
    parser.add_argument("--starts", type=int, default=1, help="processes: with one, two and all threads, both memories")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args(arguments)


def over_starts(args: argparse.Namespace) -> None:
    """One process start says little about the next: where its pages and threads lie is drawn anew."""
    print(", ".join(f"{key} {value}" for key, value in machine(torch.device("cpu")).items()))
    print(f"{args.starts} starts each, {args.shape}, {args.dtype}; medians of {args.calls} calls, then over the starts")
    columns = ("clone ms", "composite ms", "x clone", "worst", "CPU ms", "clone's")
    print(f"{'threads, memory':20}" + "".join(f"{column:>14}" for column in columns))
    for threads in sorted({1, 2, os.cpu_count() or 1}):
        for memory in ("fresh", "recycled"):
            rows = [one_start(args, threads, memory == "recycled") for _ in range(args.starts)]
            clone, composite, clone_cpu, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
            ratios = [row[1] / row[0] for row in rows]
            figures = (clone, composite, statistics.median(ratios), max(ratios), cpu, clone_cpu)
            print(f"{f'{threads}, {memory}':20}" + "".join(f"{figure:14.2f}" for figure in figures), flush=True)


def one_start(args: argparse.Namespace, threads: int, recycled: bool) -> tuple[float, float, float, float]:
    """Milliseconds of ``clone()`` and of the operator in a process of its own, then of the processor for both."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "start.json"
        command = [sys.executable, __file__, "--calls", str(args.calls), "--threads", str(threads), "--json", str(path)]
        command += ["--dtype", args.dtype, "--cells", str(args.cells), "--bank", str(args.bank)]
        command += ["--shape", *map(str, args.shape), *(["--recycle"] if recycled else [])]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        timings = json.loads(path.read_text())["milliseconds"]
    clone, composite = timings["clone"], timings["voronoi_composite"]
    return clone["median"], composite["median"], clone["cpu"], composite["cpu"]


def main() -> None:
    args = parse()
    if args.starts > 1:
        over_starts(args)
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.recycle:
        recycle()
    values = inputs(args)
    agree(values)
    timings = measure_together(functions(values, args.plain), device=device, calls=args.calls)
    image = values["foreground"].nbytes
    copied, moved = 2 * image, 2 * image + values["mask"].nbytes + values["foreground"].numel()
    clone = timings["clone"]
    print(", ".join(f"{key} {value}" for key, value in machine(device).items()))
    print(
        f"kernels: {extension_status().state} {extension_status().devices};",
        f"{args.shape}, {args.dtype}, {args.cells} cells",
    )
    print(f"floor: a copy, {copied / 1e6:.0f} MB, {copied / clone.median / 1e6:.1f} GB/s", end="; ")
    print(f"with mask and bank {moved / 1e6:.0f} MB = {moved / copied:.2f} x its bytes\n")
    print(f"{'':32}{'median ms':>10}{'quartiles':>16}{'x clone':>9}{'best':>8}{'x best':>8}{'% copy bandwidth':>18}")
    for name, t in timings.items():
        share = "" if "voronoi" not in name else f"{100 * (moved / t.median) / (copied / clone.median):.0f}"
        quartiles = f"{t.low:.2f}-{t.high:.2f}"
        print(
            f"{name:32}{t.median:10.2f}{quartiles:>16}{t.median / clone.median:9.2f}"
            f"{t.best:8.2f}{t.best / clone.best:8.2f}{share:>18}"
        )
    if args.json:
        settings = {**vars(args), "json": str(args.json), "extension": extension_status().state}
        write_json(args.json, settings, timings, device)


@pytest.mark.parametrize("name", list(functions(inputs(parse(["--shape", "1", "1", "4", "4"])))))
def test_voronoi(benchmark: Any, name: str) -> None:
    args = parse(["--shape", "16", "3", "224", "224"])
    benchmark(functions(inputs(args))[name])


if __name__ == "__main__":
    main()
