"""``TorchvisionMaker``: torchvision's networks of instances (Mask R-CNN) and of semantic classes (DeepLab and kin)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from torch_bgdebias._optional import require
from torch_bgdebias.checkpoints import read_checkpoint
from torch_bgdebias.files import first_few
from torch_bgdebias.masks.making.licences import Licence, known_licence
from torch_bgdebias.masks.making.protocol import Hints, MadeMasks, MaskMakingError, certainty
from torch_bgdebias.preprocessing import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["TorchvisionMaker", "category_number"]

#: VOC's names for COCO's
_COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
_LEAST_SCORE = 0.5


class TorchvisionMaker:
    """Mask R-CNN: the instances of the class that the text names. DeepLab, FCN, LR-ASPP: its share of each pixel.

    Without a text all but background is object.

    Args:
        model: torchvision's name, such as ``maskrcnn_resnet50_fpn``.
        checkpoint: your own weights; without it torchvision downloads its published ones.
        device: where it runs.

    Raises:
        ImportError: torchvision is not there. ValueError: no such network, or a checkpoint that does not fit.
    """

    takes, needs = frozenset({"text"}), frozenset[str]()

    def __init__(self, model: str, *, checkpoint: Path | None = None, device: torch.device) -> None:
        models: Any = require("torchvision.models", purpose=f"--with torchvision:{model}")
        self.name, self.device = f"torchvision:{model}", device
        segmenting = models.list_models(module=models.segmentation)
        instances = [name for name in models.list_models(module=models.detection) if name.startswith("maskrcnn")]
        if model not in [*segmenting, *instances]:
            raise ValueError(f"--with {self.name}: expected one of {', '.join([*instances, *segmenting])}")
        self.of_instances = model in instances
        weights = models.get_model_weights(model).DEFAULT
        self.classes: Sequence[str] = [str(name).casefold() for name in weights.meta["categories"]]
        self.licence: Licence = known_licence("torchvision", model)
        if checkpoint is None:
            self.network = models.get_model(model, weights=weights)
        else:
            self.licence = Licence("unknown", f"see where {checkpoint.name} comes from")
            aux = {} if self.of_instances else {"aux_loss": True} if not model.startswith("lraspp") else {}
            self.network = models.get_model(
                model, weights=None, weights_backbone=None, num_classes=len(self.classes), **aux
            )
            read_checkpoint(checkpoint).load_into(self.network)
        self.network = self.network.to(device).eval()

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        categories = [None if text is None else category_number(self.name, text, self.classes) for text in hints.texts]
        with torch.no_grad():
            return self._instances(images, categories) if self.of_instances else self._semantic(images, categories)

    def _instances(self, images: Tensor, categories: Sequence[int | None]) -> MadeMasks:
        masks, confidences = [], []
        for result, number in zip(self.network(list(images.to(self.device))), categories, strict=True):
            usable = result["scores"] >= _LEAST_SCORE
            if number is not None:
                usable = usable & (result["labels"] == number)
            planes = result["masks"][usable, 0]
            masks.append(planes.amax(0).cpu() if len(planes) else torch.zeros(images.shape[2:]))
            confidences.append(result["scores"][usable].max().cpu() if len(planes) else torch.zeros(()))
        return MadeMasks(torch.stack(masks), torch.stack(confidences))

    def _semantic(self, images: Tensor, categories: Sequence[int | None]) -> MadeMasks:
        mean, std = (torch.tensor(unit).view(1, 3, 1, 1) for unit in (IMAGENET_MEAN, IMAGENET_STD))
        scaled = _shorter_side((images - mean) / std, 520)
        logits = self.network(scaled.to(self.device))["out"]
        shares = interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False).softmax(1).cpu()
        masks = [
            1 - share[0] if number is None else share[number] for share, number in zip(shares, categories, strict=True)
        ]
        mask = torch.stack(masks)
        return MadeMasks(mask, certainty(mask))


def category_number(maker: str, text: str, classes: Sequence[str]) -> int:
    """The number of the class that a text names, in COCO's words or in VOC's.

    Raises:
        MaskMakingError: there is no such class.
    """
    name = text.casefold().replace("_", " ")
    name = name if name in classes else _COCO_NAMES.get(name, name)
    if name not in classes:
        names = first_few((names for names in classes if names not in ("n/a", "__background__")), 100)
        raise MaskMakingError(
            f"{maker}: expected one of its classes ({names}), got {text!r}; --prompt '' takes all of them"
        )
    return list(classes).index(name)


def _shorter_side(images: Tensor, side: int) -> Tensor:
    """Images whose shorter side is as in the published weights' own transform."""
    height, width = images.shape[2:]
    scale = side / min(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
