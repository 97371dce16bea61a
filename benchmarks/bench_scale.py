"""What does a measurement of many images and classes cost beside the model's own passes? A trivial model, one thread.

    python benchmarks/bench_scale.py                                 50,000 images of 1000 classes
    python benchmarks/bench_scale.py --images 10000 --classes 100

Seconds of processor time and the process's peak memory. The floor is the model's own calls and two walks over the
loader, which are taken off.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from torch_bgdebias import compare_models, evaluate_background_bias

DIFFERENT = 2000  # pictures that are made; the others differ in two pixels


class Pictures(Dataset[Any]):
    """Random pictures of 8 pixels with a square in front."""

    def __init__(self, images: int, classes: int) -> None:
        self.images, self.classes = images, classes
        self.pixels = torch.rand(DIFFERENT, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        self.mask = torch.zeros(1, 8, 8)
        self.mask[:, 2:6, 2:6] = 1

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        picture = self.pixels[index % DIFFERENT].clone()
        picture[0, 0, 0], picture[1, 0, 0] = index / self.images, (index * 7 % self.images) / self.images
        return picture, index % self.classes, self.mask


class Timed(nn.Module):
    """A linear model that counts the time of its calls."""

    def __init__(self, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net, self.seconds = nn.Sequential(nn.Flatten(), nn.Linear(192, classes)), 0.0

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K)."""
        start = time.process_time()
        logits: Tensor = self.net(image)
        self.seconds += time.process_time() - start
        return logits


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds of processor time."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def peak() -> float:
    """Gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=1000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    imported = peak()
    loader = DataLoader(Pictures(args.images, args.classes), batch_size=250)
    walk = timed(lambda: sum(len(batch[0]) for batch in loader))[1]
    models = [Timed(args.classes, seed) for seed in (0, 1)]
    print(f"{args.images} images, {args.classes} classes, torch {torch.__version__}")
    reports = []
    for model in models:
        report, seconds = timed(lambda model=model: evaluate_background_bias(model, loader))
        reports.append(report)
        beyond = seconds - model.seconds - 2 * walk
        print(f"evaluate_background_bias: {beyond:.1f} s beyond model ({model.seconds:.1f} s) and loader ("
              f"{2 * walk:.1f} s); peak {peak() - imported:.2f} GB above the imports' {imported:.2f} GB")  # fmt: skip
    print(f"compare_models: {timed(lambda: compare_models(reports))[1]:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        for ending, write in (("json", reports[0].to_json), ("parquet", reports[0].to_parquet)):
            path = Path(folder) / f"report.{ending}"
            seconds = timed(lambda write=write, path=path: write(path))[1]
            print(f"to_{ending}: {seconds:.1f} s, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
