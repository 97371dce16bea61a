"""Backgrounds from items of other libraries' data sets (Hugging Face ``datasets``, webdataset, lists of dicts)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from torch_bgdebias.backgrounds.bank import BackgroundBank
from torch_bgdebias.checks import check_count, describe
from torch_bgdebias.depth import require_eight_bits

__all__ = ["Place", "background_bank", "colour_picture_of", "label_of", "picture_of", "sides_of", "value_at"]

#: where something is in an item: a key of a mapping, or a position in a tuple
Place: TypeAlias = str | int


def background_bank(
    items: Iterable[Any],
    size: int | tuple[int, int],
    *,
    image: Place = "image",
    label: Place | None = None,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
) -> BackgroundBank:
    """A bank of the pictures in any iterable of items, such as a data set of ``datasets`` or webdataset.

    Pictures are scaled until they cover (H, W) and cropped at the centre, as by `BackgroundBank.from_folder`, and kept
    as uint8.

    Args:
        items: pictures, or mappings or tuples that hold one, walked over once. Pictures are Pillow's, uint8 or float
            arrays (H, W, C), tensors (C, H, W), or the bytes of an image file.
        size: (H, W), or one number for both.
        image: where the picture is in an item; ``None``: the item itself.
        label: where its class or scene category is, a whole number, or one of ``classes``; ``None``: no labels.
        classes: names of the labels 0, 1, ...
        limit: so many pictures at most, the first ones.
        mean: as for the bank.
        std: as for the bank.

    Raises:
        KeyError: an item lacks one of them; the message says what it has.
        TypeError, ValueError: a picture or a label of another kind, or no item at all.

    Example:
        >>> items = [{"image": np.zeros((8, 8, 3), np.uint8), "scene": 1}, {"image": torch.ones(3, 9, 5), "scene": 0}]
        >>> background_bank(items, 4, label="scene").labels.tolist()
        [1, 0]
    """
    height, width = sides_of(size)
    if limit is not None:
        check_count(limit, name="limit")
    pictures, labels = [], []
    for number, item in enumerate(items):
        if limit is not None and number == limit:
            break
        is_image_alone = label is None and isinstance(item, Tensor | np.ndarray | Image.Image | bytes)
        value = item if is_image_alone else value_at(item, image, number)
        picture = colour_picture_of(value, name=f"image of item {number}")
        fitted = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
        pictures.append(torch.from_numpy(np.array(fitted)).permute(2, 0, 1))
        if label is not None:
            labels.append(label_of(value_at(item, label, number), classes, number))
    if limit is not None and len(pictures) == limit > 1 and len(set(labels)) == 1:
        warnings.warn(
            f"limit: the first {limit} items are all of label {labels[0]}, as where items are sorted: shuffle them, or "
            "take more",
            stacklevel=2,
        )
    if not pictures:
        raise ValueError("items: expected at least one item with a picture, got none")
    label_tensor = torch.tensor(labels) if label is not None else None
    return BackgroundBank(torch.stack(pictures), label_tensor, mean=mean, std=std, classes=classes)


def sides_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """(H, W) of a size that may be one number."""
    height, width = (size, size) if isinstance(size, int) else size
    return check_count(height, name="size"), check_count(width, name="size")


def value_at(item: Any, place: Place, number: int) -> Any:
    """What an item holds at a place.

    Raises:
        KeyError: it holds nothing there; the message says what it holds.
    """
    try:
        return item[place]
    except (KeyError, IndexError, TypeError):
        contents = f"keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else describe(item)
        raise KeyError(f"item {number}: expected something at {place!r}, got {contents}") from None


def label_of(value: Any, classes: Sequence[str] | None, number: int) -> int:
    """A class as a number.

    Raises:
        ValueError: neither a whole number nor one of ``classes``.
    """
    if isinstance(value, str) and classes is not None and value in classes:
        return list(classes).index(value)
    if isinstance(value, (bytes, str, float)) or np.size(value) != 1:
        accepted = "" if classes is None else f" or one of {', '.join(classes)}"
        raise ValueError(f"label of item {number}: expected a whole number{accepted}, got {describe(value)}")
    return int(value)


def colour_picture_of(value: Any, *, name: str) -> Image.Image:
    """As `picture_of`, in RGB.

    Raises:
        TypeError, ValueError: as there; a picture of more than 8 bits.
    """
    picture = picture_of(value, name=name)
    require_eight_bits(picture, name=name)
    return picture.convert("RGB")


def picture_of(value: Any, *, name: str) -> Image.Image:
    """A picture, an array, a tensor or an image file's bytes as a picture of Pillow; floats are in [0, 1].

    Raises:
        TypeError, ValueError: something else, or floats out of range.
    """
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):  # datasets' Image(decode=False)
        value = value.get("bytes") or Path(value["path"]).read_bytes()
    if isinstance(value, bytes):
        value = Image.open(io.BytesIO(value))
    if isinstance(value, Image.Image):
        return ImageOps.exif_transpose(value)
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value  # numpy has no bfloat16
        value = (value.permute(1, 2, 0) if value.ndim == 3 else value).numpy()
    if not isinstance(value, np.ndarray) or value.ndim not in (2, 3):
        raise TypeError(f"{name}: expected a picture, an array (H, W, C), a tensor (C, H, W) or a file's bytes, "
                        f"got {describe(value)}")  # fmt: skip
    if value.dtype.kind == "f":
        if not bool(((value >= 0) & (value <= 1)).all()):
            raise ValueError(f"{name}: expected floats in [0, 1], got [{value.min():g}, {value.max():g}]")
        value = np.round(value * 255)
    elif value.dtype == bool:
        value = value * 255
    elif value.dtype != np.uint8:
        raise TypeError(f"{name}: expected uint8 or floats in [0, 1], got {value.dtype}")
    plane = value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value
    return Image.fromarray(plane.astype(np.uint8))
