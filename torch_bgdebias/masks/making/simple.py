"""Makers without weights: GrabCut, boxes as masks, and a user's function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.compositing import box_mask
from torch_bgdebias.masks.grabcut import grabcut_certainty, grabcut_masks
from torch_bgdebias.masks.making.licences import Licence
from torch_bgdebias.masks.making.protocol import Hints, MadeMasks, MaskMakingError, certainty
from torch_bgdebias.models import eval_mode
from torch_bgdebias.named_models import imported

__all__ = ["BoxMaker", "FunctionMaker", "GrabCutMaker", "function_named"]


class GrabCutMaker:
    """GrabCut, in each box, or in the picture without its border; on the CPU, picture by picture.

    Its confidence without boxes is the share of the rectangle's edge that came out as background: an object seldom lies
    along it. An object reaches all four sides of its box, and may fill it: there it is how surely the colours part both
    (`grabcut_certainty`). 0 where nothing was found and the mask is the rectangle.
    """

    takes, needs = frozenset({"boxes"}), frozenset[str]()

    def __init__(self, *, iterations: int = 5, margin: float = 0.05) -> None:
        options = [f"iterations {iterations}"] * (iterations != 5) + [f"margin {margin:g}"] * (margin != 0.05)
        self.name = "grabcut" + (f" ({', '.join(options)})" if options else "")
        self.iterations, self.margin = iterations, margin
        self.licence = Licence("none needed", "GrabCut has no weights; OpenCV is Apache-2.0")

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        results = [self._mask_of_image(image[None], boxes) for image, boxes in zip(images, hints.boxes, strict=True)]
        return MadeMasks(
            torch.stack([mask for mask, _ in results]), torch.stack([confidence for _, confidence in results])
        )

    def _mask_of_image(self, image: Tensor, boxes: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width = image.shape[2:]
        if boxes is None:
            mask = grabcut_masks(image, iterations=self.iterations, margin=self.margin)[0, 0]
            top, left = (min(max(1, round(side * self.margin)), (side - 1) // 2) for side in (height, width))
            inner = mask[top : height - top, left : width - left]
            edge = torch.cat([inner[0], inner[-1], inner[:, 0], inner[:, -1]])
            return mask, 1 - edge.mean()
        joined, confidences = torch.zeros(height, width), []
        for box in boxes:
            masks, certainties = grabcut_certainty(image, box, iterations=self.iterations)
            joined = torch.maximum(joined, masks[0, 0])
            confidences.append(certainties[0])
        return joined, torch.stack(confidences).mean()


class BoxMaker:
    """Boxes as they are: a rough mask, and honest about it."""

    takes = needs = frozenset({"boxes"})

    def __init__(self, name: str = "boxes") -> None:
        self.name = name
        self.licence = Licence("none needed", "boxes as they were drawn")

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        size = (images.shape[2], images.shape[3])
        masks = [
            torch.zeros(size) if boxes is None else box_mask(boxes, size)[:, 0].any(0).float() for boxes in hints.boxes
        ]
        return MadeMasks(torch.stack(masks), torch.ones(len(images)))


class FunctionMaker:
    """A function of images (B, 3, H, W) in [0, 1] that returns masks (B, H, W), or (masks, confidences (B,)).

    A module is run in evaluation mode, without gradients, on ``device``.
    """

    takes = needs = frozenset[str]()

    def __init__(self, function: Callable[[Tensor], Any], *, name: str, device: torch.device) -> None:
        self.name, self.function, self.device = name, function, device
        self.licence = Licence("your own", f"{name} is yours")

    def __call__(self, images: Tensor, hints: Hints) -> MadeMasks:
        """Masks of images (B, 3, H, W) in [0, 1]."""
        with torch.no_grad():
            if isinstance(self.function, nn.Module):
                with eval_mode(self.function):
                    made_masks = self.function(images.to(self.device))
            else:
                made_masks = self.function(images.to(self.device))
        if isinstance(made_masks, tuple) and len(made_masks) == 2:
            return MadeMasks(*made_masks)
        if not isinstance(made_masks, Tensor):
            raise MaskMakingError(f"{self.name}: expected a tensor of masks, got {type(made_masks).__name__}")
        mask = made_masks.float()
        mask = mask[:, 0] if mask.ndim == 4 and mask.shape[1] == 1 else mask
        return MadeMasks(mask, certainty(mask) if mask.ndim == 3 else torch.zeros(len(images)))


def function_named(name: str) -> Callable[[Tensor], Any]:
    """``package.module:attribute``, a function of images, or a module.

    Raises:
        ImportError, ValueError: it cannot be imported, or is nothing that can be called.
    """
    module, _, attribute = name.partition(":")
    value = imported(module, purpose=f"--with {name}")
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ValueError(f"--with {name}: {module} has no {attribute!r}")
        value = getattr(value, part)
    if not callable(value):
        raise ValueError(f"--with {name}: expected a function of images (B, 3, H, W), got {type(value).__name__}")
    function: Callable[[Tensor], Any] = value
    return function
