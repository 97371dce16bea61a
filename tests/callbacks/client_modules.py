"""Modules in the manner of public ones.

Same shape as theirs, own words: who calls what with which batch, and what comes back. Nothing in them knows of masks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn

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


class CameraTraps(pl.LightningModule):
    """As CameraTraps' classifiers: no forward, parts that the step calls, answers judged in numpy at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"feature": backbone(), "classifier": nn.Linear(8, CLASSES)})

    def on_validation_start(self):
        self.outs = []

    def logits(self, batch):
        return self.net["classifier"](self.net["feature"](batch[0]))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.logits(batch), batch[1])

    def validation_step(self, batch, batch_idx):
        self.outs.append((self.logits(batch).argmax(dim=1).cpu().numpy(), batch[1].cpu().numpy()))

    def on_validation_epoch_end(self):
        predicted, label = (np.concatenate(parts) for parts in zip(*self.outs, strict=True))
        self.log("valid_acc", float((predicted == label).mean()))

    def configure_optimizers(self):
        groups = [
            {"params": self.net[name].parameters(), "lr": lr} for name, lr in (("feature", 0.01), ("classifier", 0.1))
        ]
        return torch.optim.SGD(groups, momentum=0.9)


class Zamba(pl.LightningModule):
    """As zamba's: classes made one-hot in the step, which also keeps numpy arrays for the end of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.outputs = nn.Sequential(backbone(), nn.Linear(8, CLASSES)), []

    def forward(self, x):
        return self.model(x)

    def step(self, batch):
        x, y = batch
        y = F.one_hot(y, num_classes=CLASSES).to(torch.float)
        y_hat = self(x)
        return F.cross_entropy(y_hat, y), y, y_hat

    def training_step(self, batch, batch_idx):
        return self.step(batch)[0]

    def validation_step(self, batch, batch_idx):
        loss, y, y_hat = self.step(batch)
        self.log("val_loss", loss.detach())
        self.outputs.append((y.cpu().numpy().astype(int), y_hat.cpu().numpy()))

    def on_validation_epoch_end(self):
        y, y_hat = (np.vstack(parts) for parts in zip(*self.outputs, strict=True))
        self.outputs.clear()
        self.log("val_top_1", float((y.argmax(1) == y_hat.argmax(1)).mean()))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class FuseMedML(pl.LightningModule):
    """As FuseMedML's: forward takes the batch, and writes what comes out into it; the step returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(backbone(), nn.Linear(8, CLASSES))

    def forward(self, batch_dict):
        batch_dict["logits"] = self.body(batch_dict["image"])
        return batch_dict

    def training_step(self, batch_dict, batch_idx):
        batch_dict["global_step"] = self.global_step
        batch_dict = self.forward(batch_dict)
        batch_dict["loss"] = F.cross_entropy(batch_dict["logits"], batch_dict["label"])
        return {"loss": batch_dict["loss"], "losses": {"cls": batch_dict["loss"].item()}}

    def validation_step(self, batch_dict, batch_idx):
        self.log("val_loss", self.training_step(batch_dict, batch_idx)["losses"]["cls"])

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1)}
