"""``WithMasks``: adds masks to a data set that has none, with joint transforms of either library."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.data.own_labels import said_of_several
from torch_bgdebias.data.tensors import JointTransform
from torch_bgdebias.depth import require_eight_bits
from torch_bgdebias.files import as_tensor
from torch_bgdebias.masks.encodings import MaskEncoding
from torch_bgdebias.masks.reading import MaskReader

__all__ = ["WithMasks"]

#: object in bytes; values up to the second, with nothing between them, number labels and are no shades
_WHITE, _MOST_LABELS = 255, 40
#: so far beyond 0 and 1 an interpolation may round
_ROUNDING = 1e-3
#: mask of the item at an index: a tensor, an array or a picture
Masks: TypeAlias = "Sequence[Any] | Callable[[int], Any]"


class WithMasks(Dataset[tuple[Tensor, Any, Tensor]]):
    """(image, label, mask) from a data set of (image, label) and its masks; both are transformed together.

    Args:
        dataset: items begin with image and label; the image a float tensor (C, H, W) in [0, 1], a uint8 one, a picture
            or an array (H, W, C). Its own transforms must not move pixels: the masks would not follow.
        masks: by index: a sequence, or a function of the index. Paths of files, which are read by what they hold
            (palettes and label numbers too, `torch_bgdebias.masks.read_mask`), or masks: bool, numbers from 0 to 1, or
            uint8 from 0 to 255.
        transform: applied to image and mask together: of torchvision (v2, over its tv_tensors), albumentations
            (``A.Compose``, which gets bytes where the data set yields bytes or pictures), kornia
            (``AugmentationSequential``; ``data_keys`` are given), or any function of (image, mask) that returns both.
        encoding: how files say what is object, where that cannot be seen: a kind, or a ``MaskEncoding``. A sequence of
            paths is looked at together, as a folder's are.

    Raises:
        ValueError: a mask of another size than its image, of label numbers or colours, or numbers outside [0, 1]; as
            many masks as there are not items; files of masks that look inverted or hold no object.
        TypeError: a picture of more than 8 bits.

    Example:
        >>> pictures = [(torch.rand(3, 4, 4), 0), (torch.rand(3, 4, 4), 1)]
        >>> image, label, mask = WithMasks(pictures, torch.ones(2, 4, 4))[1]
        >>> label, mask.shape
        (1, torch.Size([1, 4, 4]))
    """

    def __init__(
        self, dataset: Any, masks: Masks, transform: Any = None, *, encoding: MaskEncoding | str = "auto"
    ) -> None:
        if not callable(masks) and len(masks) != len(dataset):
            raise ValueError(f"masks: expected one for each of {len(dataset)} items, got {len(masks)}")
        self.dataset, self.masks = dataset, masks
        self.encoding = MaskEncoding(encoding) if isinstance(encoding, str) else encoding
        self._reader = _reader_of(masks, self.encoding)
        self.transform = None if transform is None else _joint_transform(transform)
        # what its pipelines are written for: A.Normalize() divides by 255
        self._takes_bytes = "albumentations" in _packages_of(transform)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Any, Tensor]:
        picture, label = self.dataset[index][:2]
        pixels = _tensor(_eight_bits(picture) if isinstance(picture, Image.Image) else picture)
        image = _as_unit_range(pixels)
        value = self.masks(index) if callable(self.masks) else self.masks[index]
        mask = _of_file(Path(value), self._reader) if isinstance(value, str | Path) else _mask(value, index)
        if mask.shape[1:] != image.shape[1:]:
            raise ValueError(
                f"mask {index}: expected the image's size {tuple(image.shape[1:])}, got {tuple(mask.shape[1:])}; "
                "move what resizes or crops from the data set to transform="
            )
        if self.transform is not None:
            image, mask = self.transform(pixels if self._takes_bytes else image, mask)
        return image, label, mask


def _reader_of(masks: Masks, encoding: MaskEncoding) -> MaskReader:
    """Of a sequence of paths one that has looked at them together, and warned of what their items have no place for."""
    if callable(masks) or not len(masks) or not all(isinstance(mask, str | Path) for mask in masks):
        return MaskReader(encoding, {})
    reader = MaskReader.of_folder([Path(mask) for mask in masks], encoding, root="masks")
    if several := said_of_several(reader):
        warnings.warn(f"{several} (encoding=MaskEncoding(foreground=...))", stacklevel=4)
    if reader.has_void:
        warnings.warn(
            "masks: some pixels are void, neither object nor background, and count as background", stacklevel=4
        )
    return reader


def _of_file(path: Path, reader: MaskReader) -> Tensor:
    """(1, H, W) in [0, 1]."""
    return _as_unit_range(as_tensor(reader.open(path).foreground))


def _mask(value: Any, index: int) -> Tensor:
    """(1, H, W) in [0, 1]."""
    planes = _tensor(value)
    tensor = planes[:1]
    if len(planes) > 2 and not bool((planes[1:3] == tensor).all()):
        raise ValueError(
            f"mask {index}: expected one channel, got colours; pass the file's path, which is read by what it holds, "
            "or mask == colour in all channels"
        )
    if tensor.is_floating_point():
        if not bool(((tensor >= -_ROUNDING) & (tensor <= 1 + _ROUNDING)).all()):
            low, high = float(tensor.min()), float(tensor.max())
            raise ValueError(
                f"mask {index}: expected numbers from 0 to 1, or bytes from 0 to 255, got [{low:g}, {high:g}]"
            )
        return tensor.float().clamp(0, 1)
    if tensor.dtype == torch.bool:
        return _as_unit_range(tensor)
    smallest, largest = int(tensor.min()), int(tensor.max())
    between = tensor[(tensor > 0) & (tensor < _WHITE)]
    palette = isinstance(value, Image.Image) and value.mode == "P"
    if smallest >= 0 and largest <= 1 and not palette:
        return tensor.float()
    if palette or tensor.dtype != torch.uint8 or (between.numel() and int(between.max()) <= _MOST_LABELS):
        examples = ", ".join(map(str, sorted(set(tensor.flatten().tolist()))[:8]))
        raise ValueError(
            f"mask {index}: expected numbers from 0 to 1, or bytes from 0 to 255, got label numbers ({examples}); pass "
            "the file's path, which is read by what it holds, or mask == label, or mask > 0 where 0 alone is background"
        )
    return _as_unit_range(tensor)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """A picture in grey or RGB: what another mode holds is no brightness (indices of a palette, inks)."""
    require_eight_bits(picture, name="image")
    return picture if picture.mode in ("1", "L", "RGB") else picture.convert("RGB")


def _tensor(value: Any) -> Tensor:
    """(C, H, W) of the type that it comes in."""
    if isinstance(value, Image.Image):
        value = np.asarray(value)
    if isinstance(value, np.ndarray):
        value = torch.as_tensor(np.array(value))  # a copy: pictures cannot be written to
        value = value.movedim(-1, 0) if value.ndim == 3 else value
    tensor: Tensor = value if value.ndim == 3 else value[None]
    return tensor


def _as_unit_range(tensor: Tensor) -> Tensor:
    """float32; bytes as [0, 1]."""
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()


def _packages_of(transform: Any) -> set[str]:
    """Packages that the transform's classes are of."""
    return {part.__module__.split(".")[0] for part in type(transform).__mro__}


def _joint_transform(transform: Any) -> JointTransform:
    """A function of (image, mask) whichever library the transform is of."""
    home = _packages_of(transform)
    if "albumentations" in home:
        return lambda image, mask: _albumentations(transform, image, mask)
    if "kornia" in home:
        return lambda image, mask: _kornia(transform, image, mask)
    if "torchvision" in home:
        return lambda image, mask: _torchvision(transform, image, mask)
    joint_transform: JointTransform = transform
    return joint_transform


def _albumentations(transform: Any, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    transformed = transform(image=image.movedim(0, -1).numpy(), mask=mask[0].numpy())
    return _as_unit_range(_tensor(transformed["image"])), _as_unit_range(_tensor(transformed["mask"]))


def _kornia(transform: Any, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    new_image, new_mask = transform(image[None], mask[None], data_keys=["input", "mask"])
    return new_image[0], new_mask[0]


def _torchvision(transform: Any, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    from torchvision import tv_tensors

    new_image, new_mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
    return new_image.as_subclass(Tensor), new_mask.as_subclass(Tensor)
