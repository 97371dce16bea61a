"""Drawn volumes whose background gives the class away: what swap, CLAD+ and ISNet leave of it in a 3D network.

    python -m experiments.volumes.run train --seeds 0 1    two to three minutes of processor time a seed; adds lines
    python -m experiments.volumes.run table

Balls, cubes and rods of any size, at any place, in noise; behind each class, in training, waves along an axis of its
own. Tested on new volumes with the class's own background and with that of any class.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments.common import accuracy, add_line, made_with, read_lines
from torch_bgdebias import BackgroundSwap
from torch_bgdebias.callbacks import BackgroundSwapCallback, CLADCallback, ISNetCallback

HERE = Path(__file__).parent
CLASSES = ("ball", "cube", "rod")
SIZE = (12, 24, 24)
Samples = tuple[Tensor, Tensor, Tensor]

#: plain training on volumes whose background says nothing: what can be had
UNBIASED = "plain, without a bias to learn"
#: method -> the callbacks of a training
METHODS: dict[str, Any] = {
    "plain": list,
    UNBIASED: list,
    "swap": lambda: [BackgroundSwapCallback(BackgroundSwap("batch"))],
    "CLAD+": lambda: [CLADCallback(BackgroundSwap("batch"), plus=True)],
    "ISNet selective": lambda: [ISNetCallback("selective", mean=(0.5,), std=(0.25,))],
}


class Classifier(pl.LightningModule):
    """Three convolutions, the last maps' largest values in eight parts of the volume, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(24, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool3d(2), nn.Flatten(), nn.Linear(256, 3),
        )  # fmt: skip

    def forward(self, volume: Tensor) -> Tensor:
        return self.net(volume)

    def training_step(self, batch: Samples, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-3)


def draw(count: int, correlation: float, generator: torch.Generator) -> Samples:
    """Normalised volumes (N, 1, 12, 24, 24), labels and masks; a share of backgrounds is the class's, the rest any."""
    label = torch.arange(count) % len(CLASSES)
    axes = torch.stack(torch.meshgrid(*(torch.arange(side) for side in SIZE), indexing="ij")).float()
    half = torch.randint(3, 6, (count, 1, 1, 1), generator=generator)
    middle = torch.stack([torch.randint(half_of, side - half_of, (count,), generator=generator)
                          for half_of, side in zip((5, 6, 6), SIZE, strict=True)], 1)  # fmt: skip
    offset = axes[None] - middle[:, :, None, None, None]  # (N, 3, D, H, W)
    far = offset.abs()
    shapes = torch.stack([
        offset.square().sum(1) <= half.square(),
        far.amax(1) <= half - 1,
        (far[:, 0] <= 1) & (far[:, 1] <= 1) & (far[:, 2] <= half + 1),
    ])  # fmt: skip
    mask = shapes[label, torch.arange(count)].float()[:, None]
    own = torch.rand(count, generator=generator) < correlation
    kind = torch.where(own, label, torch.randint(len(CLASSES), (count,), generator=generator))
    phase, length = (torch.rand(count, 1, 1, 1, generator=generator) for _ in range(2))
    waves = torch.sin(2 * torch.pi * (axes[kind] / (4 + 4 * length) + phase))[:, None]
    brightness = 0.3 + 0.4 * torch.rand(count, 1, 1, 1, 1, generator=generator)
    volume = 0.5 + 0.3 * waves * (1 - mask) + (brightness - 0.2) * mask
    volume = volume + 0.1 * torch.randn(volume.shape, generator=generator)
    return (volume.clamp(0, 1) - 0.5) / 0.25, label, mask


def train(method: str, seed: int, *, count: int, epochs: int) -> dict[str, Any]:
    """One network; accuracy in percent on new volumes, and what the training cost."""
    generator = torch.Generator().manual_seed(seed)
    samples = draw(count, 0.0 if method == UNBIASED else 1.0, generator)
    tests = {"own": draw(600, 1.0, generator), "any": draw(600, 0.0, generator)}
    torch.manual_seed(seed)
    module = Classifier()
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", callbacks=METHODS[method](), gradient_clip_val=1.0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    start = time.process_time()
    trainer.fit(module, DataLoader(TensorDataset(*samples), 32, shuffle=True))
    seconds = time.process_time() - start
    scores = {name: accuracy(module, volume, label) for name, (volume, label, _) in tests.items()}
    return {"accuracy": scores, "cpu_seconds": round(seconds, 1)}


def tables(lines: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over seeds, processor time beside the plain training's."""
    rows = {name: [line for line in lines if line["settings"]["method"] == name] for name in METHODS}
    plain = statistics.mean(line["cpu_seconds"] for line in rows["plain"])
    text = [f"Made with {made_with(lines)}.", "", "| training | own backgrounds | any backgrounds | x plain | seeds |"]
    text.append("| --- | --- | --- | --- | --- |")
    for name, several in rows.items():
        if several:
            scores = [spread([line["accuracy"][test] for line in several]) for test in ("own", "any")]
            cost = statistics.mean(line["cpu_seconds"] for line in several) / plain
            text.append(f"| {name} | {scores[0]} | {scores[1]} | {cost:.1f} | {len(several)} |")
    return "\n".join(text)


def spread(values: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train")
    training.add_argument("--seeds", type=int, nargs="+", default=[0])
    training.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    training.add_argument("--samples", type=int, default=600)
    training.add_argument("--epochs", type=int, default=10)
    training.add_argument("--out", type=Path, default=HERE / "results.jsonl")
    commands.add_parser("table").add_argument("results", type=Path, nargs="*", default=[HERE / "results.jsonl"])
    return parser.parse_args(words)


def main() -> None:
    args = arguments()
    if args.command == "table":
        print(tables(read_lines(args.results)))
        return
    torch.set_num_threads(1)
    for seed in args.seeds:
        for method in args.methods:
            settings = {"method": method, "seed": seed, "samples": args.samples, "epochs": args.epochs}
            line = add_line(args.out, settings, **train(method, seed, count=args.samples, epochs=args.epochs))
            print(method, seed, line["accuracy"], line["cpu_seconds"], flush=True)


if __name__ == "__main__":
    main()
