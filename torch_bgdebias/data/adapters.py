"""Data sets in their published layouts as (image, label, mask): PASCAL VOC, Oxford pets, ImageNet-S.

All yield image float32 (3, H, W) in [0, 1], label int, mask float32 (1, H, W) in [0, 1], 1 = foreground, and take
``size`` (H, W) to resize both and ``transform``, called with (image, mask).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._optional import require
from torch_bgdebias.checks import check_option, check_share
from torch_bgdebias.data.masked_files import Flags, Grey, MaskedFiles, as_bytes
from torch_bgdebias.data.tensors import JointTransform
from torch_bgdebias.files import category_folders, decoded, first_few, folder_listing, image_files, require_files
from torch_bgdebias.masks.contents import load_mask, voc_palette
from torch_bgdebias.masks.encodings import MaskEncodingError

__all__ = ["ImageNetS", "OxfordPets", "VOCObjects"]

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class VOCObjects(MaskedFiles):
    """PASCAL VOC segmentation with one class per image: the object class that covers the most pixels.

    The mask is every pixel of that class; other objects are background. The unlabelled border around objects (255) is
    neither: 0 in the mask, true in `void`. Ties go to the class that comes first in the alphabet. Images without
    an object are left out (``.skipped`` counts them). All mask files are read once when the data set is opened.

    Args:
        root: as for torchvision's ``VOCSegmentation``: the folder that holds ``VOCdevkit``.
        year: as there.
        image_set: as there.
        download: as there.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).
        with_void: as in `MaskedImageFolder`.

    Raises:
        RuntimeError: torchvision does not find the data.
        UnreadableImageError: a file that cannot be decoded; names it.
        MaskEncodingError: masks of other colours or numbers than VOC's; or no image with an object in it.
    """

    classes = VOC_CLASSES
    has_void = True

    def __init__(
        self,
        root: str | Path,
        year: str = "2012",
        image_set: str = "train",
        *,
        download: bool = False,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        with_void: bool = False,
    ) -> None:
        super().__init__(size, transform, with_void)
        datasets = require("torchvision.datasets", purpose="VOCObjects")
        source = datasets.VOCSegmentation(str(root), year=year, image_set=image_set, download=download)
        self.masks: list[Path] = []
        self.skipped = 0
        for image, mask in zip(source.images, source.masks, strict=True):
            pixels = np.bincount(_voc_index(Path(mask)).ravel(), minlength=256)[1 : len(VOC_CLASSES) + 1]
            if pixels.max() == 0:
                self.skipped += 1
                continue
            self.images.append(Path(image))
            self.masks.append(Path(mask))
            self.labels.append(int(pixels.argmax()))
        if not self.images:
            raise MaskEncodingError(f"{root}: expected objects in the masks of {image_set}, got none in {self.skipped}")

    def _mask(self, index: int) -> Grey:
        return as_bytes(_voc_index(self.masks[index]) == self.labels[index] + 1)

    def _void(self, index: int) -> Flags:
        void: Flags = _voc_index(self.masks[index]) == 255
        return void


class OxfordPets(MaskedFiles):
    """Oxford-IIIT Pet: breeds (or cat / dog) with masks from the trimaps.

    Args:
        root: as for torchvision's ``OxfordIIITPet``: the folder that holds ``oxford-iiit-pet``.
        split: ``"trainval"`` or ``"test"``.
        target: ``"category"`` (37 breeds) or ``"binary-category"`` (cat 0, dog 1).
        boundary: mask value of the trimap's third region, the band around the animal, in [0, 1]. It holds the fur, so
            it is foreground unless you say otherwise; ``None``: void.
        download: as in torchvision.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).
        with_void: as in `MaskedImageFolder`.

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
        boundary: float | None = 1.0,
        download: bool = False,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        with_void: bool = False,
    ) -> None:
        super().__init__(size, transform, with_void)
        datasets = require("torchvision.datasets", purpose="OxfordPets")
        check_option(target, ("category", "binary-category"), name="target")
        self.has_void = boundary is None
        share = 0.0 if boundary is None else boundary
        check_share(share, name="boundary", kind="a mask value")
        kinds = [target, "segmentation"]
        source = datasets.OxfordIIITPet(str(root), split=split, target_types=kinds, download=download)
        binary = target == "binary-category"
        self.classes = source.bin_classes if binary else source.classes
        self.images, self.masks = list(source._images), list(source._segs)
        self.labels = list(source._bin_labels if binary else source._labels)
        self._values = np.zeros(256, np.uint8)  # the trimap's 1: animal, 2: background, 3: the band between them
        self._values[1], self._values[3] = 255, round(255 * share)

    def _void(self, index: int) -> Flags | None:
        void: Flags = self._trimap(index) == 3
        return void if self.has_void else None

    def _mask(self, index: int) -> Grey:
        return np.take(self._values, self._trimap(index))

    def _trimap(self, index: int) -> Grey:
        trimap = np.asarray(decoded(self.masks[index]))
        values = np.unique(trimap).tolist()
        if trimap.ndim != 2 or not set(values) <= {1, 2, 3}:
            raise MaskEncodingError(
                f"mask {self.masks[index]}: expected a trimap of 1 (animal), 2 (background) and 3 (the band between), "
                f"got {first_few(values)}"
            )
        return trimap


class ImageNetS(MaskedFiles):
    """ImageNet-S (919, 300 or 50 classes): the pixels of the image's own class are the foreground.

    Layout: ``<root>/<split>/<wnid>/*.JPEG`` and ``<root>/<split>-segmentation/<wnid>/*.png``. The masks are RGB files
    that hold the class id as R + 256 G: 0 is everything else, 1000 is to be ignored (0 in the mask, true in
    `void`). Class ids count from 1 in the sorted order of the data set's wnids.

    Args:
        root: for example ``ImageNetS50``.
        split: a part that has masks: ``"validation"`` or ``"train-semi"``.
        categories: all wnids of the data set, or a file with one in each line (``ImageNetS_categories_im50.txt``).
            By default the folders of the split, which must then be complete, or ids would be wrong.
        size: (H, W) of image and mask, ``None``: as they are.
        transform: takes and returns (image, mask).
        with_void: as in `MaskedImageFolder`.

    Attributes:
        classes: the wnids, sorted; a label is the class id minus 1.

    Raises:
        FileNotFoundError: folders or masks that are missing (the first few are listed).
        ValueError: a folder that is not among ``categories``; when an item is read, a mask in which the image's class
            does not occur while another does: the sign of incomplete categories.
    """

    has_void = True

    def __init__(
        self,
        root: str | Path,
        split: str = "validation",
        *,
        categories: Sequence[str] | str | Path | None = None,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        with_void: bool = False,
    ) -> None:
        super().__init__(size, transform, with_void)
        folder, masks = Path(root) / split, Path(root) / f"{split}-segmentation"
        for path in (folder, masks):
            if not path.is_dir():
                raise FileNotFoundError(
                    f"{root}: expected the folder {path.name}, found {first_few(folder_listing(Path(root)))}"
                )
        available = sorted(path.name for path in category_folders(folder))
        if isinstance(categories, str | Path):
            try:
                categories = Path(categories).read_text(encoding="utf-8-sig").split()
            except UnicodeDecodeError as error:
                raise ValueError(f"categories: {categories}: expected text in UTF-8, got {error}") from error
        self.classes = sorted(categories) if categories is not None else available
        unknown = sorted(set(available) - set(self.classes))
        if unknown or not available:
            raise ValueError(f"categories: expected every folder of {folder}, got none for {first_few(unknown)}")
        self.masks: list[Path] = []
        for name in available:
            for image in image_files(folder / name):
                self.images.append(image)
                self.masks.append(masks / name / f"{image.stem}.png")
                self.labels.append(self.classes.index(name))
        require_files(self.masks, root)

    def _ids(self, index: int) -> NDArray[np.int32]:
        colours = np.asarray(decoded(self.masks[index]).convert("RGB")).astype(np.int32)
        return colours[..., 0] + 256 * colours[..., 1]

    def _void(self, index: int) -> Flags:
        void: Flags = self._ids(index) == 1000
        return void

    def _mask(self, index: int) -> Grey:
        ids = self._ids(index)
        is_object = ids == self.labels[index] + 1
        if not is_object.any() and ((ids > 0) & (ids != 1000)).any():
            raise ValueError(
                f"{self.masks[index]}: expected pixels of class id {self.labels[index] + 1}, "
                f"got {first_few(np.unique(ids).tolist())}; pass categories= with all wnids of the data set"
            )
        return as_bytes(is_object)


def _voc_index(path: Path) -> Grey:
    """VOC's class numbers of one mask file, from palette indices, grey numbers, or VOC's colours.

    Raises:
        MaskEncodingError: other colours or numbers.
    """
    mask = load_mask(path)
    if mask.mode == "RGB":
        packed = mask.as_colours().astype(np.int64) @ np.array([65536, 256, 1])
        palette_codes = voc_palette().astype(np.int64) @ np.array([65536, 256, 1])
        order = np.argsort(palette_codes)
        position = order[np.searchsorted(palette_codes, packed, sorter=order).clip(0, 255)]
        index = np.where(palette_codes[position] == packed, position, 256)
    else:
        index = mask.values.astype(np.int64)
    strange = sorted(set(np.unique(index).tolist()) - {*range(len(VOC_CLASSES) + 1), 255})
    if strange:
        examples = first_few(mask.colours) if mask.mode == "RGB" else first_few(strange)
        raise MaskEncodingError(
            f"mask {path} ({mask.mode}): expected VOC's palette, class numbers 0 to 20 and 255, or VOC's colours, "
            f"got {examples}"
        )
    return index.astype(np.uint8)
