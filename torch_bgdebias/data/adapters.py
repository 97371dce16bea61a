"""Data sets in their published layouts as (image, label, mask): VOC, Oxford pets, ImageNet-S, Waterbirds.

All yield image float32 (3, H, W) in [0, 1], label int, mask float32 (1, H, W) in [0, 1], 1 = foreground, and take
``size`` (H, W) to resize both and ``transform``, called with (image, mask).
"""

from __future__ import annotations

import csv
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.checks import check_option
from torch_bgdebias.data.folder import MaskSizeError
from torch_bgdebias.data.tensors import JointTransform
from torch_bgdebias.files import (
    as_tensor,
    check_size,
    decoded,
    first_few,
    folder_listing,
    image_files,
    open_image,
    require_files,
    resized,
)
from torch_bgdebias.masks.reading import open_mask

__all__ = ["ImageNetS", "OxfordPets", "VOCObjects", "Waterbirds"]

Grey = np.ndarray[Any, np.dtype[np.uint8]]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class _MaskedFiles(Dataset[Any]):
    """What the adapters share: image files, classes, and a way to get each mask."""

    classes: Sequence[str]

    def __init__(self, size: int | tuple[int, int] | None, transform: JointTransform | None) -> None:
        self.size = check_size(size)
        self.transform = transform
        self.images: list[Path] = []
        self.labels: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        image, mask = self._pair(index)
        return image, self.labels[index], mask

    @abstractmethod
    def _mask(self, index: int) -> Grey | Image.Image:
        """The mask of sample ``index``, 0 to 255."""

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        picture, cover = open_image(self.images[index]), self._mask(index)
        mask = cover if isinstance(cover, Image.Image) else Image.fromarray(cover)
        if mask.size != picture.size:
            raise MaskSizeError(
                f"mask of {self.images[index]}: expected the image's size {picture.size[::-1]} (H, W), "
                f"got {mask.size[::-1]}"
            )
        pair = tuple(as_tensor(resized(side, self.size)).float().div_(255) for side in (picture, mask))
        return (pair[0], pair[1]) if self.transform is None else self.transform(pair[0], pair[1])


class VOCObjects(_MaskedFiles):
    """PASCAL VOC segmentation with one class per image: the object class that covers the most pixels.

    The mask is every pixel of that class; other objects and the unlabelled border around objects are background. Ties
    go to the class that comes first in the alphabet. Images without an object are left out (``.skipped`` counts them).
    All mask files are read once when the data set is opened.

    Args:
        root: as for torchvision's ``VOCSegmentation``: the folder that holds ``VOCdevkit``.
        year: as there.
        image_set: as there.
        download: as there.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).

    Raises:
        RuntimeError: torchvision does not find the data.
        UnreadableImageError: a file that cannot be decoded; names it.
    """

    classes = VOC_CLASSES

    def __init__(
        self,
        root: str | Path,
        year: str = "2012",
        image_set: str = "train",
        *,
        download: bool = False,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
    ) -> None:
        super().__init__(size, transform)
        from torchvision.datasets import VOCSegmentation

        source = VOCSegmentation(str(root), year=year, image_set=image_set, download=download)
        self.masks: list[Path] = []
        self.skipped = 0
        for image, mask in zip(source.images, source.masks, strict=True):
            pixels = np.bincount(np.asarray(decoded(mask)).ravel(), minlength=256)[1 : len(VOC_CLASSES) + 1]
            if pixels.max() == 0:
                self.skipped += 1
                continue
            self.images.append(Path(image))
            self.masks.append(Path(mask))
            self.labels.append(int(pixels.argmax()))

    def _mask(self, index: int) -> Grey:
        return _bytes(np.asarray(decoded(self.masks[index])) == self.labels[index] + 1)


class OxfordPets(_MaskedFiles):
    """Oxford-IIIT Pet: breeds (or cat / dog) with masks from the trimaps.

    Args:
        root: as for torchvision's ``OxfordIIITPet``: the folder that holds ``oxford-iiit-pet``.
        split: ``"trainval"`` or ``"test"``.
        target: ``"category"`` (37 breeds) or ``"binary-category"`` (cat 0, dog 1).
        boundary: mask value of the trimap's third region, the band around the animal, in [0, 1]. It holds the fur, so
            it is foreground unless you say otherwise.
        download: as in torchvision.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).

    Raises:
        RuntimeError: torchvision does not find the data.
        ValueError: unknown target, or boundary outside [0, 1].
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "trainval",
        *,
        target: str = "category",
        boundary: float = 1.0,
        download: bool = False,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
    ) -> None:
        super().__init__(size, transform)
        from torchvision.datasets import OxfordIIITPet

        check_option(target, ("category", "binary-category"), name="target")
        if not 0.0 <= boundary <= 1.0:
            raise ValueError(f"boundary: expected a mask value in [0, 1], got {boundary!r}")
        kinds = [target, "segmentation"]
        source = OxfordIIITPet(str(root), split=split, target_types=kinds, download=download)
        binary = target == "binary-category"
        self.classes = source.bin_classes if binary else source.classes
        self.images, self.masks = list(source._images), list(source._segs)
        self.labels = list(source._bin_labels if binary else source._labels)
        self._values = np.zeros(256, np.uint8)  # the trimap's 1: animal, 2: background, 3: the band between them
        self._values[1], self._values[3] = 255, round(255 * boundary)

    def _mask(self, index: int) -> Grey:
        trimap: Grey = np.asarray(decoded(self.masks[index]))
        return np.take(self._values, trimap)


class ImageNetS(_MaskedFiles):
    """ImageNet-S (919, 300 or 50 classes): the pixels of the image's own class are the foreground.

    Layout: ``<root>/<split>/<wnid>/*.JPEG`` and ``<root>/<split>-segmentation/<wnid>/*.png``. The masks are RGB files
    that hold the class id as R + 256 G: 0 is everything else, 1000 is to be ignored (background here). Class ids count
    from 1 in the sorted order of the data set's wnids.

    Args:
        root: for example ``ImageNetS50``.
        split: a part that has masks: ``"validation"`` or ``"train-semi"``.
        categories: all wnids of the data set, or a file with one in each line (``ImageNetS_categories_im50.txt``).
            By default the folders of the split, which must then be complete, or ids would be wrong.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).

    Attributes:
        classes: the wnids, sorted; a label is the class id minus 1.

    Raises:
        FileNotFoundError: folders or masks that are missing (the first few are listed).
        ValueError: a folder that is not among ``categories``; when an item is read, a mask in which the image's class
            does not occur while another does: the sign of incomplete categories.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "validation",
        *,
        categories: Sequence[str] | str | Path | None = None,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
    ) -> None:
        super().__init__(size, transform)
        folder, masks = Path(root) / split, Path(root) / f"{split}-segmentation"
        for path in (folder, masks):
            if not path.is_dir():
                raise FileNotFoundError(
                    f"{root}: expected the folder {path.name}, found {first_few(folder_listing(Path(root)))}"
                )
        there = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if isinstance(categories, str | Path):
            categories = Path(categories).read_text().split()
        self.classes = sorted(categories) if categories is not None else there
        unknown = sorted(set(there) - set(self.classes))
        if unknown or not there:
            raise ValueError(f"categories: expected every folder of {folder}, got none for {first_few(unknown)}")
        self.masks: list[Path] = []
        for name in there:
            for image in image_files(folder / name):
                self.images.append(image)
                self.masks.append(masks / name / f"{image.stem}.png")
                self.labels.append(self.classes.index(name))
        require_files(self.masks, root)

    def _mask(self, index: int) -> Grey:
        colours = np.asarray(decoded(self.masks[index]).convert("RGB")).astype(np.int32)
        ids = colours[..., 0] + 256 * colours[..., 1]
        own = ids == self.labels[index] + 1
        if not own.any() and ((ids > 0) & (ids != 1000)).any():
            raise ValueError(
                f"{self.masks[index]}: expected pixels of class id {self.labels[index] + 1}, "
                f"got {first_few(np.unique(ids).tolist())}; pass categories= with all wnids of the data set"
            )
        return _bytes(own)


class Waterbirds(_MaskedFiles):
    """Waterbirds-style folders: birds cut out and pasted onto places that go with their class.

    ``metadata.csv`` in the root has the columns ``img_filename``, ``y`` (class), ``split`` (0 train, 1 val, 2 test) and
    ``place`` (background class). Items are (image, label, mask, place), read with ``BatchSpec(background_label=3)``;
    without ``masks`` they are (image, label, place): ``BatchSpec(mask=None, background_label=2)``.

    Args:
        root: folder with ``metadata.csv`` and the images.
        split: ``"train"``, ``"val"`` or ``"test"``.
        masks: folder with ``<img_filename>`` as .png: the ``segmentations`` of CUB-200-2011. Their grey levels (how
            many annotators agreed) are a soft mask.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask); without masks it gets a full one.

    Attributes:
        places: the background class of every sample.

    Raises:
        FileNotFoundError: no ``metadata.csv``, or images or masks that are missing (the first few are listed).
        ValueError: unknown split, no sample in it, or columns that are missing.
    """

    classes = ("landbird", "waterbird")

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        *,
        masks: str | Path | None = None,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
    ) -> None:
        super().__init__(size, transform)
        check_option(split, ("train", "val", "test"), name="split")
        table = Path(root) / "metadata.csv"
        if not table.is_file():
            raise FileNotFoundError(
                f"{root}: expected metadata.csv in it, found {first_few(folder_listing(Path(root)))}"
            )
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {"img_filename", "y", "split", "place"}
        if not rows or not columns <= rows[0].keys():
            raise ValueError(f"{table}: expected the columns {sorted(columns)}, got {sorted(rows[0]) if rows else []}")
        rows = [row for row in rows if int(row["split"]) == ("train", "val", "test").index(split)]
        if not rows:
            raise ValueError(f"split: {table} has no sample of {split!r}")
        self.images = [Path(root) / row["img_filename"] for row in rows]
        self.labels = [int(row["y"]) for row in rows]
        self.places = [int(row["place"]) for row in rows]
        self.masks = (
            None if masks is None else [(Path(masks) / row["img_filename"]).with_suffix(".png") for row in rows]
        )
        require_files(self.images, root)
        if self.masks is not None:
            require_files(self.masks, str(masks))

    def __getitem__(self, index: int) -> Any:
        image, mask = self._pair(index)
        if self.masks is None:
            return image, self.labels[index], self.places[index]
        return image, self.labels[index], mask, self.places[index]

    def _mask(self, index: int) -> Image.Image:
        if self.masks is None:
            return Image.new("L", open_image(self.images[index]).size, 255)
        return open_mask(self.masks[index])


def _bytes(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> Grey:
    return mask.astype(np.uint8) * np.uint8(255)
