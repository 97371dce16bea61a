"""A fit with CLADCallback in two processes: python ddp_fit.py FOLDER (Lightning starts the second one itself)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytorch_lightning as pl
import small_training
import torch
from small_training import Module, loader
from torch.utils.data import TensorDataset

from torch_bgdebias.callbacks import CLADCallback
from torch_bgdebias.swap import BackgroundSwap


def fit(folder: Path, epochs: int, name: str, ckpt: Path | None = None) -> None:
    pl.seed_everything(0, verbose=False)
    data = TensorDataset(torch.rand(22, 3, 8, 8), torch.randint(3, (22,)), (torch.rand(22, 1, 8, 8) > 0.5).float())
    module, callback = Module(), CLADCallback(BackgroundSwap(), plus=True, num_negatives=5, max_batch=4)
    trainer = small_training.fit(
        module, callback, train=loader(data, batch_size=4), ckpt=ckpt, max_epochs=epochs, strategy="ddp", devices=2
    )
    trainer.save_checkpoint(folder / f"{name}.ckpt")
    state = {
        "losses": torch.stack(module.totals).tolist(),
        "queue": callback.loss.state_dict(),
        "weights": module.state_dict(),
    }
    torch.save(state, folder / f"{name}{trainer.global_rank}.pt")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    fit(folder, 4, "whole")
    fit(folder, 2, "half")
    fit(folder, 4, "resumed", folder / "half.ckpt")
