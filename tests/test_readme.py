"""The README's Python blocks run, one after another in one namespace, on small random data."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


class Pictures(Dataset):
    """Images with masks, as a user's data set yields them."""

    classes = ("cow", "ship")

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int):
        generator = torch.Generator().manual_seed(index)
        mask = torch.zeros(1, 32, 32)
        mask[:, 8:24, 8:24] = 1
        return torch.rand(3, 32, 32, generator=generator), index % 2, mask


class TheirModule(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
        )

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch, batch_idx):
        image, label, _ = batch
        return nn.functional.cross_entropy(self(image), label)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_there_are_examples():
    assert len(BLOCKS) >= 3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {
        "train_loader": DataLoader(Pictures(), batch_size=8),
        "val_loader": DataLoader(Pictures(), batch_size=8),
        "TheirModule": TheirModule,
        "model": TheirModule().net,
        "optimizer": torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1),
    }
    for block in BLOCKS:
        exec(compile(block, str(README), "exec"), namespace)
    assert (tmp_path / "bias.html").read_text().startswith("<!DOCTYPE html>")
