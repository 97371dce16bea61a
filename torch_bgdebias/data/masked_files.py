"""``MaskedFiles``: the base class of the adapters to published data sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.checks import check_size
from torch_bgdebias.data.reading import MaskSizeError
from torch_bgdebias.data.tensors import JointTransform, with_void_of
from torch_bgdebias.files import as_tensor, content_id, open_image, orientation, resized, turned

__all__ = ["Flags", "Grey", "MaskedFiles", "as_bytes"]

#: (H, W) of 0 to 255
Grey = NDArray[np.uint8]
#: (H, W)
Flags = NDArray[np.bool_]


class MaskedFiles(Dataset[Any]):
    """What the adapters share: image files, classes, and a way to get each mask."""

    classes: Sequence[str]
    #: whether the masks know pixels that are neither object nor background
    has_void = False

    def __init__(
        self, size: int | tuple[int, int] | None, transform: JointTransform | None, with_void: bool = False
    ) -> None:
        self.size = check_size(size)
        self.transform = transform
        self.with_void = with_void
        #: of the images' resize
        self.interpolation = "bilinear"
        self.images: list[Path] = []
        self.labels: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        if self.with_void:
            image, mask = self._files(index)
            return with_void_of(image, self.labels[index], mask, self.void(index).float(), self.transform)
        image, mask = self._pair(index)
        return image, self.labels[index], mask

    @abstractmethod
    def _mask(self, index: int) -> Grey | Image.Image:
        """The mask of sample ``index``, 0 to 255."""

    def _void(self, index: int) -> Flags | None:
        """Where sample ``index`` is neither object nor background, (H, W); ``None``: nowhere."""
        return None

    def image_id(self, index: int) -> str:
        """An id of sample ``index`` that depends on neither size nor units: its file's contents."""
        return content_id(self.images[index])

    def void(self, index: int) -> Tensor:
        """Where sample ``index`` is neither object nor background, (1, H, W) bool; ``transform`` is not applied.

        Its mask is 0 there, so that void never counts as object.
        """
        flags = self._void(index)
        if flags is None:
            height, width = self.size or open_image(self.images[index]).size[::-1]
            return torch.zeros(1, height, width, dtype=torch.bool)
        return as_tensor(resized(Image.fromarray(as_bytes(flags)), self.size)) > 127

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self._files(index)
        return pair if self.transform is None else self.transform(*pair)

    def _files(self, index: int) -> tuple[Tensor, Tensor]:
        picture, mask_file = open_image(self.images[index]), self._mask(index)
        mask = mask_file if isinstance(mask_file, Image.Image) else Image.fromarray(mask_file)
        if picture.size != mask.size == picture.size[::-1]:
            mask = turned(mask, orientation(self.images[index]))  # drawn on the pixels as stored
        if mask.size != picture.size:
            raise MaskSizeError(
                f"mask of {self.images[index]}: expected the image's size {picture.size[::-1]} (H, W), "
                f"got {mask.size[::-1]}"
            )
        resized_pair = resized(picture, self.size, self.interpolation), resized(mask, self.size)
        image, cover = (as_tensor(picture_or_mask).float().div_(255) for picture_or_mask in resized_pair)
        return image, cover


def as_bytes(mask: Flags) -> Grey:
    """True as 255."""
    return mask.astype(np.uint8) * np.uint8(255)
