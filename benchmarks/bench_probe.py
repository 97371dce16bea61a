"""What does ``BackgroundBiasProbe`` cost beside a validation epoch? torchvision's resnet18, untrained, drawn pictures.

    python benchmarks/bench_probe.py                     2560 pictures of 64 pixels
    python benchmarks/bench_probe.py --images 5120 --size 128
    python benchmarks/bench_probe.py --watching          what looking at every validation step costs, in processor time

The floor is the share of passes over images that the probe's ``budget`` allows, 0.25 of the validation's. Two epochs a
line: the first also gathers the backgrounds.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18

from torch_bgdebias.callbacks import BackgroundBiasProbe

CLASSES = 10


class Classifier(pl.LightningModule):
    """A classifier whose training is one step, for the validation alone is timed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = resnet18(num_classes=CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, CLASSES)."""
        return self.net(image)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Log loss and accuracy, as most do."""
        logits = self(batch[0])
        self.log_dict({"loss": F.cross_entropy(logits, batch[1]), "acc": (logits.argmax(1) == batch[1]).float().mean()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD that leaves the weights as they are."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Timed(BackgroundBiasProbe):
    """The probe with a clock around its whole hook, drawing and logging of figures included."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.epochs: list[tuple[float, float]] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note (validation, probe) in seconds."""
        start = time.perf_counter()
        super().on_validation_epoch_end(trainer, pl_module)
        if not trainer.sanity_checking:
            self.epochs.append((start - self._started, time.perf_counter() - start))


def pictures(count: int, size: int, seed: int) -> TensorDataset:
    """Noise with a square foreground in the middle: what a pass costs does not depend on what is on it."""
    g = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, 1, size, size)
    masks[:, :, size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
    return TensorDataset(torch.rand(count, 3, size, size, generator=g), torch.arange(count) % CLASSES, masks)


def measure(data: TensorDataset, *, figures: bool, batch: int) -> Timed:
    """Two epochs with TensorBoard's logger."""
    probe = Timed(figures=figures)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=2, limit_train_batches=1, callbacks=[probe], accelerator="cpu", num_sanity_val_steps=1,
            logger=pl.loggers.TensorBoardLogger(folder), enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(Classifier(), DataLoader(data, batch_size=batch), DataLoader(data, batch_size=batch))
    return probe


class ValidationTime(pl.Callback):
    """Processor time of the validations after the first one."""

    def __init__(self) -> None:
        self._start = 0.0
        self.epochs: list[float] = []

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._start = time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End."""
        if trainer.current_epoch:
            self.epochs.append(time.process_time() - self._start)


def watching(data: TensorDataset, *, batch: int, repeats: int = 3) -> tuple[float, float]:
    """Processor time of a validation step, in ms, without the probe and with one that only looks; the least of them."""
    steps = -(-len(data) // batch)
    least = []
    for probes in ([], [BackgroundBiasProbe(figures=False, every_n_epochs=1000)]):
        clock = ValidationTime()
        trainer = pl.Trainer(
            max_epochs=1 + repeats, limit_train_batches=1, callbacks=[*probes, clock], accelerator="cpu", logger=False,
            num_sanity_val_steps=0, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(Classifier(), DataLoader(data, batch_size=batch), DataLoader(data, batch_size=batch))
        least.append(1000 * min(clock.epochs) / steps)
    return least[0], least[1]


def main() -> None:
    """Measure with figures off and on, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2560, help="in the validation set (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side in pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch (default: %(default)s)")
    parser.add_argument("--watching", action="store_true", help="only what looking at validation steps costs")
    args = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
    data = pictures(args.images, args.size, seed=0)
    if args.watching:
        without, with_it = watching(data, batch=args.batch)
        print(
            f"batches of {args.batch} images of {args.size} pixels, {torch.get_num_threads()} threads, torch", end=" "
        )
        print(
            f"{torch.__version__}: {without:.1f} ms a step, {with_it:.1f} ms with the probe: {with_it - without:.1f} ms"
        )
        return
    measure(pictures(128, args.size, seed=1), figures=True, batch=args.batch)  # matplotlib's fonts, first passes
    print(f"\nresnet18, {args.images} images of {args.size} pixels, {torch.get_num_threads()} threads, torch", end=" ")
    print(f"{torch.__version__}\n")
    print("| figures | epoch | images measured | validation | probe | probe / validation (floor 0.25) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for figures in (False, True):
        probe = measure(data, figures=figures, batch=args.batch)
        assert probe.report is not None
        for epoch, (validation, cost) in enumerate(probe.epochs):
            row = f"| {'on' if figures else 'off'} | {epoch} | {len(probe.report.images)}"
            print(f"{row} | {validation:.2f} s | {cost:.2f} s | {cost / validation:.2f} |")


if __name__ == "__main__":
    main()
