"""A small training in either Lightning package, and one maker for every callback."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias import BatchSpec
from torch_bgdebias.callbacks import (
    BackgroundBiasProbe,
    BackgroundSwapCallback,
    CLADCallback,
    ConceptProbeCallback,
    ISNetCallback,
)
from torch_bgdebias.concepts import ConceptSamples
from torch_bgdebias.swap import BackgroundSwap

#: those that are there; both in the development environment
PACKAGES = tuple(
    name for name in ("pytorch_lightning", "lightning.pytorch") if importlib.util.find_spec(name.split(".")[0])
)
CLASSES, COUNT, SIZE = 3, 24, 8


def package(name: str = PACKAGES[0]) -> Any:
    """The Lightning package itself."""
    return importlib.import_module(name)


def tensors(count: int = COUNT) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random images (N, 3, 8, 8), labels (N,), masks (N, 1, 8, 8) with a square in front."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(count, 1, SIZE, SIZE)
    mask[:, :, 2:6, 2:6] = 1
    return torch.rand(count, 3, SIZE, SIZE, generator=generator), torch.arange(count) % CLASSES, mask


def loader(*columns: torch.Tensor, batch_size: int = 8, **options: Any) -> DataLoader:
    """Batches of the columns, by default (image, label, mask)."""
    return DataLoader(TensorDataset(*(columns or tensors())), batch_size=batch_size, **options)


def network(outputs: int = CLASSES) -> nn.Sequential:
    """Three layers with weights that are always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, outputs),
        )  # fmt: skip


def theirs(package: str = PACKAGES[0], **replaced: Callable[..., Any]) -> Any:
    """A module as somebody else wrote it, of a package; ``replaced`` are methods written otherwise."""
    base = importlib.import_module(package).LightningModule

    class Theirs(base):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lr, self.batch_size = network(), 0.05, 4

        def forward(self, image):
            return self.net(image)

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

        test_step = validation_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    return type("Theirs", (Theirs,), replaced)()


def trainer(callbacks: Any, package: str = PACKAGES[0], **options: Any) -> Any:
    """A quiet trainer on the CPU for two epochs."""
    settings = {"max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False, **options}
    return importlib.import_module(package).Trainer(
        callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, **settings
    )


def samples() -> ConceptSamples:
    """For the concept probe."""
    image, label, mask = tensors()
    return ConceptSamples(image, mask, label)


def make_swap(spec: BatchSpec | None = None, **options: Any) -> BackgroundSwapCallback:
    return BackgroundSwapCallback(BackgroundSwap("batch", "voronoi", p=0.7), spec, **options)


def make_clad(spec: BatchSpec | None = None, **options: Any) -> CLADCallback:
    return CLADCallback(BackgroundSwap("batch", "voronoi"), spec=spec, num_negatives=4, plus=True, **options)


def make_isnet(spec: BatchSpec | None = None, **options: Any) -> ISNetCallback:
    return ISNetCallback("stochastic", spec=spec, **options)


def make_probe(spec: BatchSpec | None = None, **options: Any) -> BackgroundBiasProbe:
    return BackgroundBiasProbe(figures=False, spec=spec, **options)


def make_concepts(spec: BatchSpec | None = None, **options: Any) -> ConceptProbeCallback:
    return ConceptProbeCallback(samples(), samples(), layers=["net.0"], epochs=1, **options)


#: callbacks that change the training
TRAINING = {"swap": make_swap, "clad": make_clad, "isnet": make_isnet}
#: callbacks that only read
READING = {"probe": make_probe, "concepts": make_concepts}
CALLBACKS = {**TRAINING, **READING}
