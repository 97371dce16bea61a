"""A classifier, data and a quiet trainer for CLAD's callback."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

K, N_IMAGES, SIZE = 4, 24, 8
#: what the callback's draws need of a module in a run of one process
RANK_0 = SimpleNamespace(global_rank=0, device="cpu")


class Objects(Dataset):
    """Random images with a square in front; ``form`` says how the batch looks."""

    def __init__(self, form="tuple", length=N_IMAGES, classes=K):
        g = torch.Generator().manual_seed(1)
        self.form, self.length = form, length
        self.image = torch.rand(length, 3, SIZE, SIZE, generator=g)
        self.mask = torch.zeros(length, 1, SIZE, SIZE)
        self.mask[..., 2:6, 2:6] = 1
        self.label = torch.randint(classes, (length,), generator=g)
        self.site = torch.randint(2, (length,), generator=g)
        self.many = (torch.rand(length, K, generator=g) > 0.5).float()

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        if self.form == "dict":
            names = ("image", "mask", "label", "site", "many")
            return {name: getattr(self, name)[i] for name in names}
        if self.form == "no mask":
            return self.image[i], self.label[i]
        return self.image[i], self.label[i], self.mask[i]


def network(batch_norm=True):
    norm = nn.BatchNorm2d(6) if batch_norm else nn.Identity()
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 10), nn.ReLU(), nn.Linear(10, K)
    )


class Plain(pl.LightningModule):
    """Someone else's module."""

    def __init__(self, model=None, image=0, label=1, lr=0.05):
        super().__init__()
        self.model = network() if model is None else model
        self.image, self.label, self.lr, self.losses, self.shapes = image, label, lr, [], []

    def classify(self, image):
        return self.model(image)

    def criterion(self, logits, target):
        return F.cross_entropy(logits, target)

    def training_step(self, batch, batch_idx):
        logits = self.classify(batch[self.image])
        self.shapes.append(tuple(logits.shape))
        loss = self.criterion(logits, batch[self.label])
        self.losses.append(loss.detach().clone())
        return loss

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.losses[-1] = (self.losses[-1].item(), outputs["loss"].item())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def fit(module, *callbacks, form="tuple", epochs=1, ckpt=None, batch=8, data=None, **options):
    settings = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False} | options
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, callbacks=list(callbacks), **settings
    )
    loader = DataLoader(data or Objects(form), batch_size=batch)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, loader, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return trainer


def fresh(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Plain(**kwargs)
