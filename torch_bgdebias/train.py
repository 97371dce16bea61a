"""A classifier and a data module for ``bgdebias train``; any other LightningModule or DataModule will do as well.

They are of the Lightning package that is installed; of both, of the one that ``bgdebias train`` has chosen.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint
from torch_bgdebias.data import FolderSettings, MaskedImageFolder
from torch_bgdebias.lightning.packages import chosen
from torch_bgdebias.models import logits_of
from torch_bgdebias.named_models import load_model
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

__all__ = ["ImageClassifier", "MaskedFolders"]

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule as DataBase, LightningModule as ModuleBase
else:
    ModuleBase = DataBase = object


class _ImageClassifier(ModuleBase):
    """A classifier by name, trained with cross-entropy, AdamW and a cosine schedule. Logs ``val_acc`` and losses.

    Args:
        network: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:attribute``, as ``bgdebias probe --model``.
        num_classes: outputs; the network's own number when ``None``.
        pretrained: start from the weights that timm or torchvision publish (downloads them).
        checkpoint: start from these weights.
        lr: learning rate.
        weight_decay: of AdamW.
        channels: of the images, for timm's networks; 3 when ``None``.

    Attributes:
        preprocessing: what images the network wants, as timm's data config, the published weights or the checkpoint
            say; `MaskedFolders` prepares them so. Checkpoints of a training on them hold it, and the names of
            the classes, for ``bgdebias probe``.

    Batches are tuples (image, label, ...). Of networks with several outputs in training, such as ``googlenet``, the
    logits alone are trained.
    """

    def __init__(
        self,
        network: str,
        num_classes: int | None = None,
        pretrained: bool = False,
        checkpoint: str | None = None,
        lr: float = 1e-3,
        weight_decay: float = 1e-4,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        start = None if checkpoint is None else Path(checkpoint)
        loaded = load_model(
            network, num_classes=num_classes, checkpoint=start, pretrained=pretrained, channels=channels
        )
        self.network: nn.Module = loaded.model
        self.preprocessing = loaded.preprocessing
        self.lr, self.weight_decay = lr, weight_decay

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        return logits_of(self.network(image))

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
        accuracy = (logits.argmax(1) == label).float().mean()
        loss = nn.functional.cross_entropy(logits, label)
        self.log_dict({"val_acc": accuracy, "val_loss": loss}, prog_bar=True, batch_size=len(image), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW, cosine schedule over the fit's epochs."""
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay)
        epochs = max(1, self.trainer.max_epochs or 1)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note what the images were and what the classes are called, where this package's folders were trained on."""
        data = getattr(self._trainer, "datamodule", None)  # where Lightning puts it, unknown to its own types
        if isinstance(data, _MaskedFolders):
            checkpoint[NOTES] = notes_for_checkpoint(data.preprocessing, list(data.train.classes))


class _MaskedFolders(DataBase):
    """Masked folders for training and validation: batches (image, label, mask), normalised, training images mirrored.

    What is not said of size and normalisation is what the LightningModule in training wants (its ``preprocessing``),
    known from the start of ``fit`` or ``validate`` on; for one that does not say, 224 pixels and ImageNet's.
    Where masks hold void, `ImageClassifier` gets batches of ``MaskedVoidItem``.

    Args:
        train: folder with ``images/<class>/x.jpg`` and ``masks/<class>/x.png``.
        val: another one, with the same classes.
        size: side of the images in pixels; they are resized, not cropped.
        batch_size: images in a batch.
        workers: processes that read images.
        mean: normalisation a channel.
        std: per channel; required with ``mean``.
        mirror: mirror training images at random.
        on_error: ``"raise"`` or ``"skip"`` unreadable files and missing masks.
        encoding: how the masks say what is object; this and the next three are those of ``MaskedImageFolder``.
        foreground: values or labels that are object, or a dict of each class's.
        void: values or labels that are neither.
        mask_suffix: what a mask's name has after its image's.
        masks: of the training images, where they are not in ``masks/``: a folder, or annotations.
        val_masks: the same of the validation images.

    Attributes:
        preprocessing: how images are prepared.

    Raises:
        FileNotFoundError: no such folder, or masks are missing. ValueError: other classes in ``val`` than in ``train``.
    """

    def __init__(
        self,
        train: str,
        val: str,
        size: int | None = None,
        batch_size: int = 32,
        workers: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        mirror: bool = True,
        on_error: str = "raise",
        encoding: str = "auto",
        foreground: list[int | str] | dict[str, list[int | str]] | None = None,
        void: list[int | str] | None = None,
        mask_suffix: str = "",
        masks: str | None = None,
        val_masks: str | None = None,
    ) -> None:
        super().__init__()
        self.batch_size, self.workers = batch_size, workers
        self._asked = Preprocessing(size, mean, std, source="the data module")
        transform = self._mirrored if mirror else self._normalised
        reading = FolderSettings(
            size,
            on_error,
            encoding=encoding,
            foreground=foreground,
            void=void,
            mask_suffix=mask_suffix,
            masks=masks,
            with_void=False,  # until it is known who trains
        )
        self.train = MaskedImageFolder(train, transform=transform, settings=reading)
        of_val = replace(reading, white=self.train.white, masks=val_masks)
        self.val = MaskedImageFolder(val, transform=self._normalised, settings=of_val)
        self._prepare_as(Preprocessing())
        if list(self.train.classes) != list(self.val.classes):
            only = sorted(set(self.train.classes) ^ set(self.val.classes))
            raise ValueError(f"val: expected the classes of train; not in both: {', '.join(only[:6])}")

    def setup(self, stage: str) -> None:
        """Take over what the network in training wants of its images."""
        module = getattr(self.trainer, "lightning_module", None)
        preprocessing = getattr(module, "preprocessing", None)
        if isinstance(preprocessing, Preprocessing):  # a LightningModule may have any attributes
            self._prepare_as(preprocessing)
        for data in (self.train, self.val):  # steps of others may unpack (image, label, mask)
            data.with_void = data.has_void and isinstance(module, _ImageClassifier)
            if data.has_void and not data.with_void:
                warnings.warn(
                    f"{data.root}: some pixels of the masks are void, neither object nor background, and count as "
                    f"background: batches of {type(module).__name__} have image, label and mask",
                    stacklevel=2,
                )

    def _prepare_as(self, preprocessing: Preprocessing) -> None:
        requested, usual = self._asked, Preprocessing(224, IMAGENET_MEAN, IMAGENET_STD, "ImageNet's")
        settled = (
            preprocessing
            if requested.mean is None
            else replace(preprocessing, mean=requested.mean, std=requested.std, source=requested.source)
        )
        if settled.mean is None:
            settled = replace(settled, mean=usual.mean, std=usual.std, source=usual.source)
        self.preprocessing = replace(settled, size=requested.size or settled.size or usual.size)
        for data in (self.train, self.val):
            data.size, data.interpolation = self.preprocessing.height_width, self.preprocessing.interpolation

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled; a last batch of one image is left out, which batch normalisation could not take."""
        ragged = len(self.train) % self.batch_size == 1 and len(self.train) > 1
        return DataLoader(self.train, self.batch_size, shuffle=True, num_workers=self.workers, drop_last=ragged)

    def val_dataloader(self) -> DataLoader[Any]:
        """In order."""
        return DataLoader(self.val, self.batch_size, num_workers=self.workers)

    def _normalised(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.preprocessing(image, mask)

    def _mirrored(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return self._normalised(image, mask)


if TYPE_CHECKING:

    class ImageClassifier(_ImageClassifier):
        """See `_ImageClassifier`."""

    class MaskedFolders(_MaskedFolders):
        """See `_MaskedFolders`."""
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        return _of(name, chosen())


@functools.cache
def _of(name: str, package: Any) -> type:
    """The class on a package's own base."""
    written, base = {
        "ImageClassifier": (_ImageClassifier, "LightningModule"),
        "MaskedFolders": (_MaskedFolders, "LightningDataModule"),
    }[name]
    attributes = {"__module__": __name__, "__qualname__": name, "__doc__": written.__doc__}
    return type(name, (written, getattr(package, base)), attributes)
