"""A classifier and a data module for ``bgdebias train``; any other LightningModule or DataModule will do as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias.data import MaskedImageFolder
from torch_bgdebias.named_models import load_model

__all__ = ["ImageClassifier", "MaskedFolders"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class ImageClassifier(pl.LightningModule):
    """A classifier by name, trained with cross-entropy, AdamW and a cosine schedule. Logs ``val_acc`` and losses.

    Args:
        network: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:attribute``, as ``bgdebias probe --model``.
        num_classes: outputs; the network's own number when ``None``.
        pretrained: start from the weights that timm or torchvision publish (downloads them).
        checkpoint: start from these weights.
        lr: learning rate.
        weight_decay: of AdamW.

    Batches are tuples (image, label, ...).
    """

    def __init__(
        self,
        network: str,
        num_classes: int | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        start = None if checkpoint is None else Path(checkpoint)
        self.network: nn.Module = load_model(
            network, num_classes=num_classes, checkpoint=start, pretrained=pretrained
        ).model
        self.lr, self.weight_decay = lr, weight_decay

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.network(image)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Cross-entropy."""
        image, label = batch[0], batch[1]
        loss = nn.functional.cross_entropy(self(image), label)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Log loss and accuracy."""
        image, label = batch[0], batch[1]
        logits = self(image)
        right = (logits.argmax(1) == label).float().mean()
        loss = nn.functional.cross_entropy(logits, label)
        self.log_dict({"val_acc": right, "val_loss": loss}, prog_bar=True, batch_size=len(image), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, cosine schedule over the fit's epochs."""
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)
        epochs = max(1, self.trainer.max_epochs or 1)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)]


class MaskedFolders(pl.LightningDataModule):
    """Masked folders for training and validation: batches (image, label, mask), normalised, training images mirrored.

    Args:
        train: folder with ``images/<class>/x.jpg`` and ``masks/<class>/x.png``.
        val: another one, with the same classes.
        size: side of the images in pixels; they are resized, not cropped.
        batch_size: images in a batch.
        workers: processes that read images.
        mean: normalisation a channel.
        std: goes with ``mean``.
        mirror: mirror training images at random.
        on_error: ``"raise"`` or ``"skip"`` unreadable files and missing masks.

    Raises:
        FileNotFoundError: no such folder, or masks are missing. ValueError: other classes in ``val`` than in ``train``.
    """

    def __init__(
        self,
        train: str,
        val: str,
        size: int = 224,
        batch_size: int = 32,
        workers: int = 0,
        mean: Sequence[float] = _IMAGENET[0],
        std: Sequence[float] = _IMAGENET[1],
        mirror: bool = True,
        on_error: str = "raise",
    ) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        self._mean, self._std = (torch.tensor(list(x)).reshape(-1, 1, 1) for x in (mean, std))
        transform = self._mirrored if mirror else self._normalised
        self.train = MaskedImageFolder(train, size, transform, on_error=on_error)
        self.val = MaskedImageFolder(val, size, self._normalised, on_error=on_error)
        if list(self.train.classes) != list(self.val.classes):
            only = sorted(set(self.train.classes) ^ set(self.val.classes))
            raise ValueError(f"val: expected the classes of train; not in both: {', '.join(only[:6])}")

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled; a last batch of one image is left out, which batch normalisation could not take."""
        ragged = len(self.train) % self.batch_size == 1 and len(self.train) > 1
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.workers, drop_last=ragged)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return DataLoader(self.val, self.batch_size, num_workers=self.workers)

    def _normalised(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return (image - self._mean) / self._std, mask

    def _mirrored(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return self._normalised(image, mask)
