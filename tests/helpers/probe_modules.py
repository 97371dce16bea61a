"""LightningModules of people who never heard of the probe, and a short training with callbacks."""

from __future__ import annotations

import warnings

import pytorch_lightning as pl
import torch
from probe_toy import K, ToyImages, cheat
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Plain(pl.LightningModule):
    """Somebody's classifier: batch norm, dropout, tuple batches; it has never heard of the probe."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))
        self.head = nn.Linear(8 * 8 * 8, K)
        self.losses: list[float] = []

    def forward(self, image):
        return self.head(self.net(image))

    def unpack(self, batch):
        return batch[0], batch[1]

    def training_step(self, batch, batch_idx):
        image, label = self.unpack(batch)
        loss = F.cross_entropy(self(image), label)
        self.losses.append(float(loss))
        return loss

    def validation_step(self, batch, batch_idx):
        image, label = self.unpack(batch)
        self.log("val_loss", F.cross_entropy(self(image), label))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Dicts(Plain):
    def unpack(self, batch):
        return batch["pixels"], batch["y"]


class Cheat(Plain):
    """Validates as a model that reads the background; training changes nothing that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = cheat()
        self.head = None
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.reader(image)

    def training_step(self, batch, batch_idx):
        return self.weight.square()


def fit(module, *callbacks, epochs: int = 2, kind: str = "tuple", val=None, **options):
    torch.manual_seed(0)
    options = {"logger": False, "enable_checkpointing": False, "num_sanity_val_steps": 2} | options
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    train = DataLoader(ToyImages(32, seed=1, kind=kind), batch_size=8, shuffle=True)
    val = DataLoader(ToyImages(40, kind=kind), batch_size=7) if val is None else val
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        trainer.fit(module, train, val)
    return trainer
