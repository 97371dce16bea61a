"""Does ``bgdebias train`` give the weights that a program with the same objects gives, and what does it cost beside?

    python benchmarks/bench_train.py                     two epochs of a small network on drawn images

Both run as processes of their own, each with the same seed; seconds of processor time of the whole process, in turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import yaml
from common import machine

from torch_bgdebias.data import example_folder

PROGRAM = """
import sys, pytorch_lightning as pl
from torch_bgdebias import BackgroundSwap
from torch_bgdebias.callbacks import BackgroundBiasProbe, BackgroundSwapCallback
from torch_bgdebias.train import ImageClassifier, MaskedFolders

pl.seed_everything(0)
model = ImageClassifier(sys.argv[2], num_classes=3)
data = MaskedFolders("data", "data", size=48, batch_size=32)
callbacks = [
    BackgroundSwapCallback(BackgroundSwap("batch", pattern="voronoi")),
    BackgroundBiasProbe(figures=False),
    pl.callbacks.ModelCheckpoint(dirpath=sys.argv[1], filename="last"),
]
trainer = pl.Trainer(max_epochs=2, callbacks=callbacks, logger=False, enable_progress_bar=False)
trainer.fit(model, datamodule=data)
"""


def settings(folder: str, network: str) -> dict[str, object]:
    """The same as a file."""
    swap = {"class_path": "torch_bgdebias.BackgroundSwap", "init_args": {"source": "batch", "pattern": "voronoi"}}
    callbacks = [
        {"class_path": "torch_bgdebias.callbacks.BackgroundSwapCallback", "init_args": {"swap": swap}},
        {"class_path": "torch_bgdebias.callbacks.BackgroundBiasProbe", "init_args": {"figures": False}},
        {"class_path": "ModelCheckpoint", "init_args": {"dirpath": folder, "filename": "last"}},
    ]
    model = {"network": network, "num_classes": 3}
    data = {"train": "data", "val": "data", "size": 48, "batch_size": 32}
    return {
        "seed_everything": 0,
        "model": {"class_path": "torch_bgdebias.train.ImageClassifier", "init_args": model},
        "data": {"class_path": "torch_bgdebias.train.MaskedFolders", "init_args": data},
        "trainer": {"max_epochs": 2, "callbacks": callbacks, "logger": False, "enable_progress_bar": False},
    }


def seconds(command: list[str], folder: Path) -> float:
    """Processor time of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Run both in turns, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="timm:test_resnet")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    times: dict[str, list[float]] = {"bgdebias train": [], "program": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        example_folder(folder / "data", images_per_class=100)
        (folder / "train.yaml").write_text(yaml.safe_dump(settings("by_file", args.network)))
        (folder / "program.py").write_text(PROGRAM)
        for _ in range(args.turns):
            (folder / "by_file/last.ckpt").unlink(missing_ok=True)
            (folder / "by_program/last.ckpt").unlink(missing_ok=True)
            by_file = [sys.executable, "-m", "torch_bgdebias.cli", "train", "--config", "train.yaml"]
            times["bgdebias train"].append(seconds(by_file, folder))
            times["program"].append(seconds([sys.executable, "program.py", "by_program", args.network], folder))
        weights = [
            torch.load(folder / place / "last.ckpt", weights_only=True)["state_dict"]
            for place in ("by_file", "by_program")
        ]
    equal = all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    print(machine(torch.device("cpu")))
    medians = {way: statistics.median(values) for way, values in times.items()}
    print(f"\nMedian of {args.turns}:\n\n| way | processor time | x a program |\n| --- | --- | --- |")
    for way, median in medians.items():
        print(f"| {way} | {median:.1f} s | {median / medians['program']:.2f} |")
    print()
    print(f"weights after two epochs: {'equal, bit for bit' if equal else 'they differ'}")


if __name__ == "__main__":
    main()
