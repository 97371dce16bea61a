"""Small masked data sets held in memory as uint8: one NamedTuple, one data set over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

__all__ = ["JointTransform", "MaskedItem", "MaskedTensorDataset", "MaskedTensors", "MaskedVoidItem", "with_void_of"]

#: what a masked data set yields: image float (3, H, W) in [0, 1], class, mask float (1, H, W) in [0, 1]
MaskedItem = tuple[Tensor, int, Tensor]
#: takes and returns (image (3, H, W), mask (1, H, W)), so that both stay in step
JointTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class MaskedVoidItem(NamedTuple):
    """An item of a masked data set with void; batches of such items have the same type.

    Attributes:
        image: float (3, H, W) in [0, 1].
        label: the class.
        mask: float (1, H, W) in [0, 1], 1 = foreground, 0 where it is void.
        void: float (1, H, W) in [0, 1], 1 where a pixel is neither object nor background.
    """

    image: Tensor
    label: int
    mask: Tensor
    void: Tensor


def with_void_of(
    image: Tensor, label: int, mask: Tensor, void: Tensor, transform: JointTransform | None
) -> MaskedVoidItem:
    """The item of an image with its mask and void, moved about together.

    ``transform`` gets both as one mask of two channels, so that whatever moves or resizes a mask moves void along.
    """
    if transform is not None:
        image, masks = transform(image, torch.cat([mask, void]))
        if masks.shape[0] != 2:
            raise ValueError(
                f"transform: expected the mask's two channels back, object and void, got {tuple(masks.shape)}; "
                "with_void=True needs a transform that treats all channels of a mask alike"
            )
        mask, void = masks[:1], masks[1:]
    return MaskedVoidItem(image, label, mask, void)


class MaskedTensors(NamedTuple):
    """A whole masked data set as tensors.

    Attributes:
        images: (N, 3, H, W) uint8.
        labels: (N,) int64.
        masks: (N, 1, H, W) uint8, 0 = background, 255 = foreground, soft in between.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor

    def dataset(self, transform: JointTransform | None = None) -> MaskedTensorDataset:
        """A data set of (image, label, mask) over these tensors."""
        return MaskedTensorDataset(self.images, self.labels, self.masks, transform=transform)

    def subset(self, index: Tensor) -> MaskedTensors:
        """The samples of ``index`` (int64 positions or a bool (N,))."""
        return MaskedTensors(self.images[index], self.labels[index], self.masks[index])


class MaskedTensorDataset(Dataset[MaskedItem]):
    """(image, label, mask) items from uint8 tensors.

    Args:
        images: (N, C, H, W) uint8, or volumes (N, C, D, H, W).
        labels: (N,) integer classes.
        masks: (N, 1, H, W) uint8, 255 = foreground; of volumes (N, 1, D, H, W).
        transform: takes and returns (image, mask), both float in [0, 1].

    Raises:
        TypeError: images or masks that are not uint8 tensors.
        ValueError: shapes that do not belong together.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, masks: Tensor, *, transform: JointTransform | None = None
    ) -> None:
        for name, value in (("images", images), ("masks", masks)):
            if not isinstance(value, Tensor) or value.dtype != torch.uint8:
                kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"{name}: expected a uint8 tensor (N, C, H, W), got {kind}")
        if images.ndim not in (4, 5) or masks.shape != (images.shape[0], 1, *images.shape[2:]):
            raise ValueError(f"masks: expected (N, 1, H, W) for images {tuple(images.shape)}, got {tuple(masks.shape)}")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels: expected shape ({len(images)},), got {tuple(labels.shape)}")
        self.images, self.labels, self.masks, self.transform = images, labels.long(), masks, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> MaskedItem:
        image, mask = self.images[index].float().div_(255), self.masks[index].float().div_(255)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, int(self.labels[index]), mask
