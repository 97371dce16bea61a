"""The contract of every benchmark here.

Public API only, warm-up first, synchronised, median and spread of single calls (never a mean of a loop), fixed seeds;
the machine, versions and commit stand in the output, the floor beside each figure. Figures of one run may be compared
with each other, and with nothing else.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

K = TypeVar("K")  # whatever the functions go by
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Timing:
    """Milliseconds a call: median, quartiles and best of ``calls``; ``cpu``: of all threads, waiting ones too."""

    median: float
    low: float
    high: float
    best: float
    calls: int
    cpu: float = math.nan


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_together(
    functions: dict[K, Callable[[], Any]], *, device: torch.device, calls: int = 30, warm_up: int = 3
) -> dict[K, Timing]:
    """Time the functions in turns, so that a disturbance of the machine meets all of them alike."""
    times: dict[K, list[float]] = {name: [] for name in functions}
    processor: dict[K, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + calls):
        for name, function in functions.items():
            synchronise(device)
            start, start_cpu = time.perf_counter(), time.process_time()
            result = function()
            synchronise(device)
            elapsed, elapsed_cpu = (time.perf_counter() - start) * 1e3, (time.process_time() - start_cpu) * 1e3
            del result
            if turn >= warm_up:
                times[name].append(elapsed)
                processor[name].append(elapsed_cpu)
    return {name: summary(values, statistics.median(processor[name])) for name, values in times.items()}


def summary(milliseconds: list[float], cpu: float = math.nan) -> Timing:
    low, median, high = statistics.quantiles(milliseconds, n=4) if len(milliseconds) > 1 else (milliseconds[0],) * 3
    return Timing(median, low, high, min(milliseconds), len(milliseconds), cpu)


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit.stdout.strip() + ("+changes" if changed.stdout.strip() else ""),
    }


def processor() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def write_json(path: Path, settings: dict[str, Any], timings: dict[str, Timing], device: torch.device) -> None:
    content = {
        "machine": machine(device),
        "settings": settings,
        "milliseconds": {name: asdict(timing) for name, timing in timings.items()},
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
