"""Six modules in the manner of public ones, with all callbacks: ``python tests/callbacks/clients.py`` prints the table.

Same shape as theirs, own words: who calls what with which batch, and what comes back. Nothing in them knows of masks.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

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

CLASSES, SIDE = 3, 16


def backbone(width: int = 8) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


class HydraTemplate(pl.LightningModule):
    """As lightning-hydra-template: optimiser handed over, one ``model_step`` for all, ``self.forward``."""

    def __init__(self, net: nn.Module, optimizer: Callable[..., Any]) -> None:
        super().__init__()
        self.net, self.make_optimizer = net, optimizer
        self.criterion = nn.CrossEntropyLoss()
        self.best = 0.0

    def forward(self, x):
        return self.net(x)

    def on_train_start(self):
        self.best = 0.0

    def model_step(self, batch):
        x, y = batch
        logits = self.forward(x)
        return self.criterion(logits, y), torch.argmax(logits, dim=1), y

    def training_step(self, batch, batch_idx):
        loss, preds, targets = self.model_step(batch)
        self.log("train/acc", (preds == targets).float().mean(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, _, _ = self.model_step(batch)
        self.log("val/loss", loss)

    def configure_optimizers(self):
        return {"optimizer": self.make_optimizer(params=self.trainer.model.parameters())}


class SoloLearn(pl.LightningModule):
    """As solo-learn's linear evaluation: frozen backbone, a dict of outputs, a dict of metrics."""

    def __init__(self, finetune: bool = False) -> None:
        super().__init__()
        self.backbone, self.classifier, self.finetune = backbone(), nn.Linear(8, CLASSES), finetune
        self.backbone.requires_grad_(finetune)

    def forward(self, X):
        with torch.set_grad_enabled(self.finetune):
            feats = self.backbone(X)
        return {"logits": self.classifier(feats), "feats": feats}

    def shared_step(self, batch, batch_idx):
        X, target = batch
        return {"batch_size": X.size(0), "loss": F.cross_entropy(self(X)["logits"], target)}

    def training_step(self, batch, batch_idx):
        if not self.finetune:
            self.backbone.eval()
        out = self.shared_step(batch, batch_idx)
        self.log_dict({"train_loss": out["loss"]}, on_epoch=True, sync_dist=True)
        return out["loss"]

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.shared_step(batch, batch_idx)["loss"])

    def configure_optimizers(self):
        optimizer = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, [10])]


class GeoTask(pl.LightningModule):
    """As torchgeo's ClassificationTask: dict batches, networks and losses made by name."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = nn.Sequential(backbone(), nn.Linear(8, CLASSES))
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)

    def training_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch["image"], batch["label"]
        y_hat = self(x)
        loss = self.criterion(y_hat, y)
        self.log("train_loss", loss, batch_size=x.shape[0])
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("val_loss", self.criterion(self(batch["image"]), batch["label"]), batch_size=len(batch["label"]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class LightlyFinetune(pl.LightningModule):
    """As lightly's classifiers: ``forward`` of the parts themselves, which runs no hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.classification_head = backbone(), nn.Linear(8, CLASSES)
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, images):
        features = self.model.forward(images).flatten(start_dim=1)
        return self.classification_head(features)

    def shared_step(self, batch):
        images, targets = batch[0], batch[1]
        return self.criterion(self.forward(images), targets), len(targets)

    def training_step(self, batch, batch_idx):
        loss, size = self.shared_step(batch)
        self.log("train_loss", loss, prog_bar=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.shared_step(batch)[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class TransferLearning(pl.LightningModule):
    """As Lightning's fine-tuning example: cats or dogs, one logit, a frozen extractor with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor = backbone()
        self.fc = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
        self.loss_func = F.binary_cross_entropy_with_logits

    def forward(self, x):
        return self.fc(self.feature_extractor(x).squeeze(-1))

    def loss(self, logits, labels):
        return self.loss_func(input=logits, target=labels)

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_logits = self.forward(x)
        y_true = y.view((-1, 1)).type_as(x)
        return self.loss(y_logits, y_true)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", self.loss(self.forward(x), y.view((-1, 1)).type_as(x)))

    def configure_optimizers(self):
        parameters = list(filter(lambda p: p.requires_grad, self.parameters()))
        return torch.optim.Adam(parameters, lr=1e-3)


class KorniaExample(pl.LightningModule):
    """As Lightning's kornia example: pictures are prepared in the transfer hook, which unpacks two."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(backbone(), nn.Linear(8, CLASSES))

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, y = batch
        if self.trainer.training:
            x = (x - 0.5) / 0.25
        return x, y

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Client(NamedTuple):
    """A module, whether its batches are dicts and its labels binary, and what callbacks have to be told of it."""

    make: Callable[[], pl.LightningModule]
    options: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    keys: bool = False
    classes: int = CLASSES


def _hydra() -> HydraTemplate:
    return HydraTemplate(nn.Sequential(backbone(), nn.Linear(8, CLASSES)), functools.partial(torch.optim.Adam, lr=1e-3))


def _net(module: pl.LightningModule, image: torch.Tensor) -> torch.Tensor:
    return module.net(image)


CLIENTS = {
    "lightning-hydra-template": Client(_hydra),
    "solo-learn, linear": Client(SoloLearn),
    "solo-learn, fine-tuned": Client(lambda: SoloLearn(finetune=True)),
    "torchgeo": Client(GeoTask, keys=True),
    "lightly": Client(LightlyFinetune),
    "Lightning, transfer learning": Client(TransferLearning, {"probe": {"task": "binary"}}, classes=2),
    "Lightning, kornia": Client(
        KorniaExample, {"isnet": {"network": "net"}, "probe": {"forward": _net}, "concepts": {"forward": _net}}
    ),
}


def tensors(classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(24, 1, SIDE, SIDE)
    mask[:, :, 4:11, 4:11] = 1
    return torch.rand(24, 3, SIDE, SIDE, generator=generator), torch.arange(24) % classes, mask


def loader(client: Client) -> DataLoader:
    rows = list(zip(*tensors(client.classes), strict=True))
    if client.keys:
        rows = [dict(zip(("image", "label", "mask"), row, strict=True)) for row in rows]
    return DataLoader(rows, batch_size=8)


def samples() -> ConceptSamples:
    image, label, mask = tensors(CLASSES)
    return ConceptSamples(image, mask, label)


CALLBACKS: dict[str, Callable[..., pl.Callback]] = {
    "swap": lambda spec, **options: BackgroundSwapCallback(BackgroundSwap(), spec, **options),
    "clad": lambda spec, **options: CLADCallback(BackgroundSwap(), spec, plus=True, **options),
    "isnet": lambda spec, **options: ISNetCallback("selective", spec, **options),
    "probe": lambda spec, **options: BackgroundBiasProbe(spec=spec, figures=False, **options),
    "concepts": lambda spec, **options: ConceptProbeCallback((samples(), samples()), epochs=1, **options),
}


def fit(client: Client, name: str) -> pl.Trainer:
    """Train a client for an epoch with a callback; raises whatever comes."""
    spec = BatchSpec(*(("image", "label", "mask") if client.keys else (0, 1, 2)), hide_mask=not client.keys)
    callback = CALLBACKS[name](spec, **client.options.get(name, {}))
    hidden = [CALLBACKS["swap"](spec)] if name == "concepts" and not client.keys else []  # it has no batches of its own
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[*hidden, callback],
    )  # fmt: skip
    module = client.make()
    trainer.fit(module, loader(client), loader(client))
    return trainer


def needs(client: Client, name: str) -> str:
    """``works``, with what the callback has to be told of the module."""
    options = client.options.get(name, {})
    return "works" + (f" with `{', '.join(options)}`" if options else "")


def outcome(client: Client, name: str) -> str:
    """What it needs, or ``refuses``."""
    try:
        fit(client, name)
    except Exception:  # whatever it is: `fit` shows it
        return "refuses"
    return needs(client, name)


def table() -> str:
    """Clients x callbacks as Markdown."""
    lines = [f"| module in the manner of | {' | '.join(CALLBACKS)} |", "| --- " * (len(CALLBACKS) + 1) + "|"]
    for title, client in CLIENTS.items():
        lines.append(f"| {title} | {' | '.join(outcome(client, name) for name in CALLBACKS)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(table())
