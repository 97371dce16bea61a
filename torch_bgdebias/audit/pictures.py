"""One interface to pictures from a folder with or without masks, a data set, or a loader."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from torch_bgdebias.batch import BatchSpec, value_at
from torch_bgdebias.checks import describe
from torch_bgdebias.data.folder import MaskedImageFolder
from torch_bgdebias.data.reading import MaskSizeError
from torch_bgdebias.data.settings import FolderSettings
from torch_bgdebias.files import (
    EXTENSIONS,
    UnreadableImageError,
    category_folders,
    first_few,
    image_files,
    open_image,
    white_level,
)
from torch_bgdebias.masks.encodings import MaskEncodingError
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.unread import PICTURES_NOT_READ, apart, what_is_not_read

__all__ = ["Files", "Items", "Picture", "PictureSource", "as_source", "picture_files"]

#: names of the parts of a data set, one folder above its classes
_PARTS = frozenset(("dev", "test", "testing", "train", "training", "val", "valid", "validation"))
#: a JPEG is decoded no larger than needed for this short side, twice of it at most
_DECODED = (512, 512)


class Picture(NamedTuple):
    """One picture.

    Attributes:
        pixels: (H, W, 3) uint8, at its own size.
        mask: (H, W) uint8, 255 = object; ``None`` where there is none.
        label: number of its class.
        path: its file, where it has one.
        mode: how colours were stored.
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8] | None
    label: int
    path: Path | None = None
    mode: str = "RGB"


@dataclass
class PictureSource:
    """Where pictures come from.

    Attributes:
        classes: their names; empty where only the labels' numbers are known.
        root: the folder that names are relative to.
        total: how many pictures there are, ``None`` if unknown before the last.
        unreadable: what could not be read, and why; filled while pictures are read.
        left_out: what is known beforehand not to be looked at, with its reason.
    """

    classes: tuple[str, ...] = ()
    root: Path = Path()
    total: int | None = None
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def pictures(self, limit: int | None, seed: int) -> Iterator[tuple[int, Picture]]:
        """At most ``limit`` pictures with their positions, read on demand."""
        raise NotImplementedError


@dataclass
class Files(PictureSource):
    """Files by class, with their masks where there are any; ``decoded`` as in `torch_bgdebias.files.open_image`."""

    paths: Sequence[Path] = ()
    labels: Sequence[int] = ()
    masked: MaskedImageFolder | None = None
    white: float | None = None
    decoded: tuple[int, int] | None = _DECODED

    def pictures(self, limit: int | None, seed: int) -> Iterator[tuple[int, Picture]]:
        """As the base class says; drawn evenly from the classes."""
        for index in _drawn(np.asarray(self.labels), limit, seed):
            try:
                yield int(index), self._read(int(index))
            except (UnreadableImageError, FileNotFoundError, MaskSizeError, MaskEncodingError) as error:
                self.unreadable.append((self.paths[index].name, str(error)))

    def _read(self, index: int) -> Picture:
        path, label = self.paths[index], int(self.labels[index])
        if self.masked is None:
            picture = open_image(path, at_least=self.decoded, white=self.white)
            return Picture(np.array(picture), None, label, path)
        image, _, mask, *_ = self.masked[index]
        pixels, inside = ((values * 255).round().to(torch.uint8) for values in (image, mask[0]))
        return Picture(pixels.permute(1, 2, 0).numpy(), inside.numpy(), label, path)


@dataclass
class Items(PictureSource):
    """Items or batches of a data set or loader."""

    data: Any = None
    spec: BatchSpec | None = None
    restored: Preprocessing = field(default_factory=Preprocessing)
    batched: bool = False

    def pictures(self, limit: int | None, seed: int) -> Iterator[tuple[int, Picture]]:
        """As the base class says; evenly spread over all."""
        if self.batched or not hasattr(self.data, "__getitem__"):
            yield from self._streamed(limit)
            return
        positions: Iterable[int] = range(len(self.data))
        if limit is not None and len(self.data) > limit:
            positions = sorted(np.random.default_rng(seed).choice(len(self.data), limit, replace=False).tolist())
        for index in positions:
            try:
                item = self.data[index]
            except (UnreadableImageError, OSError) as error:
                self.unreadable.append((f"item {index}", str(error)))
                continue
            yield index, self._picture(item, index)

    def _streamed(self, limit: int | None) -> Iterator[tuple[int, Picture]]:
        stride = 1 if limit is None or self.total is None else max(1, -(-self.total // limit))
        number = n_taken = 0
        for batch in self.data:
            for item in _rows(batch, self.spec) if self.batched else [batch]:
                if number % stride == 0 and (limit is None or n_taken < limit):
                    n_taken += 1
                    yield number, self._picture(item, number)
                number += 1
            if limit is not None and n_taken >= limit:
                return

    def _picture(self, item: Any, number: int) -> Picture:
        image, label, mask = _parts(item, self.spec, number)
        mode = image.mode if isinstance(image, Image.Image) else "tensor"
        pixels = _pixels(image, number, self.restored)
        return Picture(pixels, _mask_pixels(mask, pixels.shape[:2], number), _label(label, number), None, mode)


def as_source(
    data: Any, *, masks: FolderSettings | None, spec: BatchSpec | None, restored: Preprocessing
) -> PictureSource:
    """What pictures are read from.

    Args:
        data: a folder (``images/<class>/`` with or without ``masks/<class>/``, or ``<class>/``), a data set of
            such a folder, any data set of (image, label) or (image, label, mask), a loader of such batches, or a
            source, which is given back.
        masks: how a folder's masks are read.
        spec: where image, label and mask are in an item or batch that is no tuple of these.
        restored: what tensors were normalised with.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it. ValueError: parts in place of classes.
        TypeError: something else.
    """
    if isinstance(data, PictureSource):
        return data
    if isinstance(data, str | Path):
        return _folder(Path(data), masks or FolderSettings())
    if isinstance(data, MaskedImageFolder):
        as_stored = copy.copy(data)
        as_stored.size, as_stored.transform = None, None
        return _of_masked(as_stored)
    samples = getattr(data, "samples", None)
    if isinstance(samples, list) and samples and _is_path_and_label(samples[0]) and getattr(data, "classes", None):
        paths, labels = zip(*((Path(path), int(label)) for path, label in samples), strict=True)
        return _files(data.classes, Path(getattr(data, "root", ".")), paths, labels)
    classes = tuple(map(str, getattr(data, "classes", ()) or ()))
    if isinstance(data, torch.utils.data.DataLoader):
        total = len(data.dataset) if hasattr(data.dataset, "__len__") else None
        classes = tuple(map(str, getattr(data.dataset, "classes", ()) or ()))
        return Items(classes, total=total, data=data, spec=spec, restored=restored, batched=True)
    if not hasattr(data, "__getitem__") and not hasattr(data, "__iter__"):
        raise TypeError(f"dataset: expected a folder, a data set of (image, label) or a loader, got {describe(data)}")
    total = len(data) if hasattr(data, "__len__") else None
    if total == 0:
        raise ValueError("dataset: expected pictures, got an empty one")
    return Items(classes, total=total, data=data, spec=spec, restored=restored)


def _is_path_and_label(sample: object) -> bool:
    """Whether a sample is a pair (path, label), as torchvision's ``ImageFolder`` lists them."""
    return isinstance(sample, tuple) and len(sample) == 2 and isinstance(sample[0], str | Path)


def picture_files(root: Path, *, classes: Sequence[str] | None = None, white: float | None = None) -> Files:
    """The pictures of a folder by class, whether or not it has masks.

    Args:
        root: ``images/<class>/``, or ``<class>/``.
        classes: folders to look at; all when ``None``.
        white: the value of white in files of more than 8 bits; detected if ``None``.

    Raises:
        FileNotFoundError: no such folder, or no pictures in it. ValueError: parts in place of classes.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"dataset: expected a folder of pictures, found no folder {root}")
    images = root / "images" if (root / "images").is_dir() else root
    folders = [folder for folder in category_folders(images) if folder.name != "masks"]
    names = [folder.name for folder in folders] if classes is None else list(classes)
    parts = [name for name in names if name.lower() in _PARTS]
    if classes is None and parts and (len(parts) > 1 or parts == names):
        raise ValueError(f"{images}: expected one folder per class, got the parts {first_few(parts)}; name one of them")
    listed: list[tuple[Path, int]] = []
    unread: list[Path] = []
    for label, name in enumerate(names):
        pictures, others = apart(image_files(images / name, extensions=EXTENSIONS | PICTURES_NOT_READ))
        listed += [(path, label) for path in pictures]
        unread += others
    for message in what_is_not_read([path for path, _ in listed], unread):
        warnings.warn(f"{images}: {message}", stacklevel=3)
    if not listed:
        raise FileNotFoundError(f"{images}: expected <class>/x.jpg in it, found {first_few(names) or 'no folders'}")
    paths, labels = zip(*listed, strict=True)
    source = _files(names, images, paths, labels)
    source.white = white_level(list(paths)) if white is None else white
    return source


def _folder(root: Path, options: FolderSettings) -> Files:
    said = options.mask_suffix or options.masks
    if said or ((root / "images").is_dir() and (root / "masks").is_dir()):
        return _masked_folder(root, options)
    return picture_files(root, classes=options.classes, white=options.white)


def _masked_folder(root: Path, options: FolderSettings) -> Files:
    try:
        data = MaskedImageFolder(root, settings=replace(options, size=None, on_error="raise"))
    except (FileNotFoundError, ValueError):  # masks are missing: the rest is looked at, and they are counted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = MaskedImageFolder(root, settings=replace(options, size=None, on_error="skip"))
    return _of_masked(data)


def _of_masked(data: MaskedImageFolder) -> Files:
    source = _files(data.classes, data.image_root, [s.image for s in data.samples], data.labels)
    source.masked = data
    for path, reason in data.skipped:
        reasons = source.left_out if reason.startswith(("no mask", "several masks")) else source.unreadable
        reasons.append((path.name, reason))
    return source


def _files(classes: Sequence[str], root: Path, paths: Sequence[Path], labels: Sequence[int]) -> Files:
    return Files(tuple(classes), root, len(paths), paths=paths, labels=labels)


def _drawn(labels: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """Positions of at most ``limit`` pictures in their order, as many of each class as there are, or evenly."""
    if limit is None or len(labels) <= limit:
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    counts = np.bincount(labels)
    share = int(np.searchsorted([np.minimum(counts, n).sum() for n in range(limit + 1)], limit, side="right")) - 1
    rows_by_class = [
        random.permutation(np.flatnonzero(labels == label))[: max(share, 1)] for label in np.flatnonzero(counts)
    ]
    return np.sort(np.concatenate(rows_by_class))


def _rows(batch: Any, spec: BatchSpec | None) -> Iterator[Any]:
    """The items of a batch."""
    image, label, mask = _parts(batch, spec, None)
    for row in range(len(label)):
        yield (image[row], label[row]) if mask is None else (image[row], label[row], mask[row])


def _parts(item: Any, spec: BatchSpec | None, number: int | None) -> tuple[Any, Any, Any]:
    """Image, label and mask (``None``: none) of an item or batch."""
    if spec is not None and number is None:
        mask = None if spec.mask is None else value_at(item, spec.mask, name="mask")
        assert spec.image is not None
        assert spec.label is not None
        return value_at(item, spec.image, name="image"), value_at(item, spec.label, name="label"), mask
    if isinstance(item, Mapping):
        missing = [name for name in ("image", "label") if name not in item]
        if missing:
            fields = ", ".join(map(str, item))
            raise KeyError(
                f"item: expected image and label in it, got {fields}; pass spec=BatchSpec(image=..., label=...)"
            )
        return item["image"], item["label"], item.get("mask")
    if hasattr(item, "mask") and hasattr(item, "image"):
        return item.image, item.label, item.mask
    if not isinstance(item, Sequence) or len(item) < 2:
        raise TypeError(f"item: expected (image, label) or (image, label, mask), got {describe(item)[:80]}")
    third = item[2] if len(item) > 2 else None
    is_mask = isinstance(third, Tensor | np.ndarray | Image.Image) and getattr(third, "ndim", 2) >= 2
    return item[0], item[1], third if is_mask else None


def _label(value: Any, number: int) -> int:
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"label of item {number}: expected one whole number, got {describe(value)[:80]}")
    return int(array.reshape(()))


def _pixels(image: Any, number: int, restored: Preprocessing) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of whatever an item holds."""
    if isinstance(image, Image.Image):
        return np.array(image.convert("RGB"))
    values = image if isinstance(image, Tensor) else torch.as_tensor(np.asarray(image))
    if not isinstance(image, Tensor) and values.ndim == 3 and values.shape[-1] in (1, 3, 4):
        values = values.movedim(-1, 0)
    values = values.detach().cpu()
    values = values[None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[0] not in (1, 3, 4):
        raise ValueError(f"image {number}: expected (3, H, W), (1, H, W) or (H, W), got {describe(values)}")
    if values.dtype != torch.uint8:
        values = restored.restore(values[:3].float())
        low, high = (float(x) for x in values.aminmax())
        if not (low >= -0.02 and high <= 1.02):
            raise ValueError(
                f"image {number}: expected values in [0, 1], or bytes, got [{low:g}, {high:g}]; say what they were "
                "normalised with (mean=, std=)"
            )
        values = (values.clamp(0, 1) * 255).round().to(torch.uint8)
    return values[:3].expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()


def _mask_pixels(mask: Any, size: tuple[int, ...], number: int) -> NDArray[np.uint8] | None:
    if mask is None:
        return None
    array = mask.detach().cpu() if isinstance(mask, Tensor) else mask
    values = np.asarray(array.float() if isinstance(array, Tensor) and array.is_floating_point() else array)
    values = values.reshape(values.shape[-2:]) if values.size == np.prod(values.shape[-2:]) else values
    if values.shape != tuple(size):
        raise ValueError(f"mask {number}: expected the image's size {tuple(size)}, got {values.shape}")
    if values.dtype == np.uint8 and values.max(initial=0) > 1:
        return values
    return np.asarray(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)
