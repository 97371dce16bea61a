"""A fit with CLADCallback in two processes: python ddp_fit.py FOLDER (Lightning starts the second one itself)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
        self.losses = []

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(folder: Path, epochs: int, name: str, ckpt: Path | None = None) -> None:
    pl.seed_everything(0, verbose=False)
    data = TensorDataset(torch.rand(22, 3, 8, 8), torch.randint(3, (22,)), (torch.rand(22, 1, 8, 8) > 0.5).float())
    module, callback = Module(), CLADCallback(BackgroundSwap(), plus=True, num_negatives=5, max_batch=4)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", strategy="ddp", devices=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[callback],
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch_size=4), ckpt_path=ckpt, weights_only=False if ckpt else None)
    trainer.save_checkpoint(folder / f"{name}.ckpt")
    state = {"losses": module.losses, "queue": callback.loss.state_dict(), "weights": module.state_dict()}
    torch.save(state, folder / f"{name}{trainer.global_rank}.pt")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fit(folder, 4, "whole")
    fit(folder, 2, "half")
    fit(folder, 4, "resumed", folder / "half.ckpt")
