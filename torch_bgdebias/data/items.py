"""Masked data from items of other libraries' data sets: Hugging Face ``datasets``, webdataset, lists of dicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from torch_bgdebias.backgrounds.items import Place, colour_picture_of, label_of, picture_of, sides_of, value_at
from torch_bgdebias.data.tensors import JointTransform, MaskedItem

__all__ = ["ItemReader", "MaskedItems", "MaskedStream"]


@dataclasses.dataclass(frozen=True)
class ItemReader:
    """How an item becomes image, label and mask.

    Args:
        size: (H, W), or one number for both; pictures are resized, not cropped.
        image: where the picture is in an item: a key, or a position.
        label: where its class is: a whole number, or one of ``classes``.
        mask: where its mask is, of the picture's size: bool, floats in [0, 1], or bytes of two values of which 0 is
            background. Transparency, where a mask has some, is taken in place of its colours (without ``foreground``).
        foreground: values of the mask that are object, where it has others (label numbers).
        classes: names of the classes 0, 1, ...
        transform: applied to image and mask together, after resizing.
    """

    size: int | tuple[int, int]
    image: Place = "image"
    label: Place = "label"
    mask: Place = "mask"
    foreground: Sequence[int] | None = None
    classes: Sequence[str] | None = None
    transform: JointTransform | None = None

    def __call__(self, item: Any, number: int) -> MaskedItem:
        """(image (3, H, W) in [0, 1], label, mask (1, H, W) in [0, 1]).

        Raises:
            KeyError: the item lacks one of them.
            TypeError, ValueError: one of them is of another kind or size, or a mask whose values do not say what is
                object.
        """
        height, width = sides_of(self.size)
        picture = colour_picture_of(value_at(item, self.image, number), name=f"image of item {number}")
        plane = picture_of(value_at(item, self.mask, number), name=f"mask of item {number}")
        if plane.size != picture.size:
            raise ValueError(f"mask of item {number}: expected the picture's size {picture.size}, got {plane.size}")
        cover = Image.fromarray(self._object(_one_channel(plane, labels=self.foreground is not None), number))
        resized = [x.resize((width, height), Image.Resampling.BILINEAR) for x in (picture, cover)]
        image = torch.from_numpy(np.array(resized[0])).permute(2, 0, 1).float() / 255
        mask: Tensor = torch.from_numpy(np.array(resized[1]))[None].float() / 255
        label = label_of(value_at(item, self.label, number), self.classes, number)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, label, mask

    def _object(self, values: NDArray[Any], number: int) -> NDArray[np.uint8]:
        """255 where the mask says object; a soft edge stays as it is."""
        if self.foreground is not None:
            return np.where(np.isin(values, list(self.foreground)), 255, 0).astype(np.uint8)
        levels = np.unique(values)
        if len(levels) == 1 or (len(levels) == 2 and levels[0] == 0):
            return np.where(values > 0, 255, 0).astype(np.uint8)
        if values.dtype == np.uint8 and len(levels) > 16:  # a soft edge has many values, label numbers few
            return values
        examples = ", ".join(map(str, levels[:8].tolist()))
        raise ValueError(f"mask of item {number}: its values {examples} do not say which of them are object: "
                         "foreground=[...]")  # fmt: skip


class MaskedItems(Dataset[MaskedItem]):
    """Image, label and mask from a map-style data set.

    Args:
        items: with ``len`` and ``[i]``, such as a ``datasets.Dataset``.
        reader: how an item is read.

    Example:
        >>> items = [{"image": np.zeros((4, 4, 3), np.uint8), "label": 1, "mask": np.eye(4, dtype=bool)}]
        >>> image, label, mask = MaskedItems(items, ItemReader(4))[0]
        >>> label, float(mask.sum())
        (1, 4.0)
    """

    def __init__(self, items: Any, reader: ItemReader) -> None:
        self.items, self.reader = items, reader
        if reader.classes is not None:
            self.classes = list(reader.classes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> MaskedItem:
        return self.reader(self.items[index], index)


class MaskedStream(IterableDataset[MaskedItem]):
    """Image, label and mask from a stream, such as a ``webdataset.WebDataset``; pictures may be undecoded.

    Args:
        items: iterable that starts again each time. With workers it has to share its items out among them itself, as
            those of webdataset and ``datasets`` do: of a plain one every worker yields all.
        reader: how an item is read.

    Raises:
        TypeError: an iterator, which can be walked over once only.
    """

    def __init__(self, items: Iterable[Any], reader: ItemReader) -> None:
        if isinstance(items, Iterator):
            raise TypeError("items: expected an iterable that starts again each time, got an iterator, which ends")
        self.items, self.reader = items, reader

    def __iter__(self) -> Iterator[MaskedItem]:
        for number, item in enumerate(self.items):
            yield self.reader(item, number)


def _one_channel(mask: Image.Image, *, labels: bool) -> NDArray[Any]:
    """A mask's values (H, W): its transparency where it has some, else grey levels, or the numbers that it holds.

    Args:
        mask: of any mode.
        labels: whether they are label numbers, which transparency holds none of.
    """
    if len(mask.getbands()) == 1:
        return np.asarray(mask)
    if "A" in mask.getbands() and not labels:
        alpha = np.asarray(mask.getchannel("A"))
        if alpha.min() == 0 or alpha.min() < alpha.max():
            return alpha
    return np.asarray(mask.convert("L"))
