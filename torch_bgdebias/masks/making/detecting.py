"""``BoxDetector``: boxes from a torchvision detector, for pictures without annotated boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from torch_bgdebias._optional import require
from torch_bgdebias.checkpoints import read_checkpoint
from torch_bgdebias.masks.making.licences import Licence, known_licence
from torch_bgdebias.masks.making.protocol import whole_boxes
from torch_bgdebias.masks.making.torchvision import category_number

__all__ = ["DETECTORS", "BoxDetector"]

#: what begins the name of a detector in place of a file of boxes
DETECTORS = "torchvision:"
_LEAST_SCORE = 0.5


class BoxDetector:
    """The boxes in which one of torchvision's detectors sees the class that a text names, or any class without one.

    Args:
        name: ``torchvision:MODEL`` with Faster R-CNN, RetinaNet, SSD, FCOS or another of its detectors.
        checkpoint: your own weights; without it torchvision downloads its published ones.
        device: where it runs.
        least_score: boxes of a lower score are left out, in [0, 1].

    Raises:
        ImportError: torchvision is not there. ValueError: no such detector, or a checkpoint that does not fit.
    """

    def __init__(
        self,
        name: str,
        *,
        checkpoint: Path | None = None,
        device: torch.device | str = "cpu",
        least_score: float = _LEAST_SCORE,
    ) -> None:
        models: Any = require("torchvision.models", purpose=f"--boxes {name}")
        model = name.removeprefix(DETECTORS)
        names = models.list_models(module=models.detection)
        if model not in names:
            raise ValueError(f"--boxes {name}: expected one of {', '.join(DETECTORS + detector for detector in names)}")
        self.name, self.device, self.least_score = name, torch.device(device), least_score
        weights = models.get_model_weights(model).DEFAULT
        self.classes = [str(category).casefold() for category in weights.meta["categories"]]
        if checkpoint is None:
            self.licence = known_licence("torchvision", model)
            network = models.get_model(model, weights=weights)
        else:
            self.licence = Licence("unknown", f"see where {checkpoint.name} comes from")
            network = models.get_model(model, weights=None, weights_backbone=None, num_classes=len(self.classes))
            read_checkpoint(checkpoint).load_into(network)
        self.network: Any = network.to(self.device).eval()

    def find(self, image: Tensor, text: str | None) -> Tensor | None:
        """Boxes (K, 4) of an image (3, H, W) in [0, 1] as `torch_bgdebias.masks.Hints` has them, ``None`` without any.

        Args:
            image: the picture.
            text: the class that is looked for; ``None``: all of the detector's.

        Raises:
            MaskMakingError: the detector has no such class.
        """
        category = None if text is None else category_number(self.name, text, self.classes)
        with torch.no_grad():
            (detected,) = self.network([image.to(self.device)])
        usable = detected["scores"] >= self.least_score
        if category is not None:
            usable = usable & (detected["labels"] == category)
        boxes = whole_boxes(detected["boxes"][usable].cpu(), image.shape[1], image.shape[2])
        return boxes if boxes is not None and len(boxes) else None
