"""``ImageNet9``: the Background Challenge's pictures as published, and its scoring of 1000-class models.

Layout (release of Noise or Signal, arXiv 2006.09994)::

    <root>/<variant>/val/00_dog/n02085620_10074.JPEG            (variant: original, only_fg, ..., mixed_next)
    <root>/mixed_rand/val/00_dog/fg_n02085620_10074_bg_n02536864_02721.JPEG
    <root>/fg_mask/val/00_dog/n02085620_10074.npy
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.checks import check_option, check_size, describe
from torch_bgdebias.data.reading import MaskSizeError
from torch_bgdebias.data.tensors import JointTransform, MaskedItem
from torch_bgdebias.data.variants import VARIANTS
from torch_bgdebias.files import (
    UnreadableImageError,
    as_tensor,
    content_id,
    first_few,
    folder_listing,
    image_files,
    open_image,
    resized,
)
from torch_bgdebias.probabilities import without_softmax

__all__ = ["IMAGENET9_RANGES", "ImageNet9", "ImageNet9Sample", "imagenet9_prediction", "to_imagenet9"]

#: the nine classes in the order of their labels, each with its ImageNet classes (0 to 999, sorted by wnid) as ranges
#: that include both ends; 630 classes belong to none of the nine
IMAGENET9_RANGES: dict[str, tuple[tuple[int, int], ...]] = {
    "dog": ((151, 170), (173, 268)),
    "bird": ((7, 24), (87, 100), (127, 146)),
    "wheeled vehicle": (
        (407, 408), (428, 428), (436, 436), (444, 444), (468, 468), (511, 511), (547, 547), (555, 555), (561, 561),
        (565, 565), (569, 569), (573, 573), (586, 586), (603, 603), (609, 609), (612, 612), (627, 627), (656, 656),
        (661, 661), (665, 665), (670, 671), (675, 675), (690, 690), (705, 705), (717, 717), (734, 734), (751, 751),
        (757, 757), (791, 791), (802, 803), (817, 817), (820, 820), (829, 829), (847, 847), (864, 864), (866, 867),
        (870, 870), (880, 880),
    ),
    "reptile": ((33, 68),),
    "carnivore": ((269, 280), (286, 299), (356, 362), (387, 388)),
    "insect": ((300, 326),),
    "musical instrument": (
        (401, 402), (420, 420), (432, 432), (486, 486), (494, 494), (513, 513), (541, 541), (546, 546), (558, 558),
        (566, 566), (577, 577), (579, 579), (593, 594), (641, 642), (683, 684), (687, 687), (699, 699), (776, 776),
        (822, 822), (875, 875), (881, 881), (889, 889),
    ),
    "primate": ((365, 384),),
    "fish": ((0, 6), (389, 397)),
}  # fmt: skip


class ImageNet9Sample(NamedTuple):
    """The files of one sample: image, mask (``None`` without masks), and the class's index."""

    image: Path
    mask: Path | None
    label: int


class ImageNet9(Dataset[MaskedItem]):
    """One variant of ImageNet-9 with its foreground masks: items (image, label, mask).

    An item is a tuple of image float32 (3, H, W) in [0, 1], label int (0 dog, 1 bird, ... 8 fish), and mask float32
    (1, H, W), 1 = foreground; without masks of (image, label). In the variants with another background the mask is that
    of the picture that the foreground came from.

    Args:
        root: the unpacked release: the folder that holds ``original/``, ``mixed_rand/``, ..., ``fg_mask/``.
        variant: ``"original"`` or one of ``VARIANTS``.
        size: (H, W), or one int for a square, to which image and mask are resized; ``None`` keeps 224 x 224.
        transform: takes and returns (image, mask), after resizing; only with masks.
        masks: whether items have masks; ``None``: where ``fg_mask/`` is there.
        on_error: ``"raise"``: a missing mask is an error when the folder is opened; ``"skip"``: samples without a mask
            are left out, listed in ``.skipped`` and counted in one warning. An unreadable file is an error either way.
        split: ``"val"``, the only one of the evaluation release; the training archives have ``"train"`` too.

    Attributes:
        classes: names of the nine classes by index.
        samples: list of ``ImageNet9Sample(image, mask, label)``.
        skipped: what ``on_error="skip"`` left out, list of (file, reason).
        absent: names of classes without an image.

    Raises:
        FileNotFoundError: no such folder, no pictures, or masks that are missing (the first few and their number).
        ValueError: unknown variant or setting, or a class folder that is not called ``00_...`` to ``08_...``.
    """

    classes = tuple(IMAGENET9_RANGES)
    #: of the images' resize
    interpolation = "bilinear"

    def __init__(
        self,
        root: str | Path,
        variant: str = "original",
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        *,
        masks: bool | None = None,
        on_error: str = "raise",
        split: str = "val",
    ) -> None:
        self.root = Path(root)
        self.variant = check_option(variant, ("original", *VARIANTS), name="variant")
        self.size = check_size(size)
        self.on_error = check_option(on_error, ("raise", "skip"), name="on_error")
        self.split = split
        mask_root = self.root / "fg_mask" / split
        self.has_masks = mask_root.is_dir() if masks is None else masks
        if transform is not None and not self.has_masks:
            raise ValueError("transform: expected only with masks, of which there are none here; transform the batch")
        self.transform = transform
        self.skipped: list[tuple[Path, str]] = []
        self.samples = self._scan(self.root / variant / split, mask_root)
        self.absent = [name for i, name in enumerate(self.classes) if all(s.label != i for s in self.samples)]

    @property
    def labels(self) -> list[int]:
        """The class index of every sample."""
        return [sample.label for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def image_id(self, index: int) -> str:
        """An id of sample ``index`` that depends on neither size nor units: the contents of its picture's file."""
        return content_id(self.samples[index].image)

    def __getitem__(self, index: int) -> MaskedItem:
        sample = self.samples[index]
        picture = open_image(sample.image)
        image = as_tensor(resized(picture, self.size, self.interpolation)).float().div_(255)
        if sample.mask is None:
            return image, sample.label  # type: ignore[return-value]  # asked for: a data set without masks
        grey = _read_mask(sample.mask)
        if grey.size != picture.size:
            size, mask_size = (picture.height, picture.width), (grey.height, grey.width)
            raise MaskSizeError(f"mask {sample.mask}: expected the size {size} of {sample.image}, got {mask_size}")
        mask = as_tensor(resized(grey, self.size)).float().div_(255)
        if self.transform is not None:
            image, mask = self.transform(image, mask)
        return image, sample.label, mask

    def _scan(self, folder: Path, mask_root: Path) -> list[ImageNet9Sample]:
        if not folder.is_dir():
            entries = first_few(folder_listing(self.root), 12)
            raise FileNotFoundError(f"{self.root}: expected {self.variant}/{self.split}/ in it, found {entries}")
        samples, missing = [], []
        for group in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            label = _label_of(group)
            for path in image_files(group):
                mask = mask_root / group.name / f"{foreground_name(path)}.npy" if self.has_masks else None
                if mask is not None and not mask.is_file():
                    missing.append(path)
                else:
                    samples.append(ImageNet9Sample(path, mask, label))
        total = len(samples) + len(missing)
        if not total:
            raise FileNotFoundError(f"{folder}: expected pictures in 00_dog/ to 08_fish/, found none")
        if missing and (self.on_error == "raise" or not samples):
            names = (f"{mask_root / p.parent.name / foreground_name(p)}.npy" for p in missing)
            raise FileNotFoundError(f"{self.root}: {len(missing)} of {total} images have no mask: {first_few(names)}")
        self.skipped = [(path, "no mask") for path in missing]
        if missing:
            listed = first_few(path.name for path in missing)
            warnings.warn(f"{folder}: skipped {len(missing)} of {total} images without a mask: {listed}", stacklevel=3)
        return samples


def imagenet9_prediction(logits: Tensor) -> Tensor:
    """The answer of a 1000-class model in the challenge: the ImageNet-9 class of its largest logit.

    Args:
        logits: (B, 1000) in ImageNet's order, or (B, 9) of a model trained on ImageNet-9, whose answer is taken as is.

    Returns:
        (B,) int64, -1 where the predicted class belongs to none of the nine (always counted as wrong).

    Raises:
        TypeError, ValueError: anything else.
    """
    _check_logits(logits)
    answer = logits.argmax(1)
    return answer if logits.shape[1] == len(IMAGENET9_RANGES) else _table(logits.device)[answer]


def to_imagenet9(logits: Tensor) -> Tensor:
    """Logits of a 1000-class model as logits of ImageNet-9's nine classes and a tenth, "none of them".

    Each is the largest logit of its ImageNet classes, so the largest of the ten is the challenge's answer, with 9 in
    place of -1: labels are 0 to 8, so it is always wrong. Anything that takes logits can score by them, such as
    ``evaluate_background_bias(..., logits=to_imagenet9)``.

    Args:
        logits: (B, 1000) in ImageNet's order.

    Returns:
        (B, 10) of the same dtype, differentiable.

    Raises:
        TypeError, ValueError: anything else.
    """
    _check_logits(logits)
    if logits.shape[1] != 1000:
        raise ValueError(f"logits: expected shape (B, 1000), got {describe(logits)}")
    table = _table(logits.device)
    logits = without_softmax(logits)
    groups = torch.where(table < 0, len(IMAGENET9_RANGES), table).expand(len(logits), -1)
    empty = logits.new_full((len(logits), len(IMAGENET9_RANGES) + 1), -torch.inf)
    return empty.scatter_reduce(1, groups, logits, "amax")


def foreground_name(path: Path) -> str:
    """The picture that a variant's foreground came from: ``fg_A_bg_B.JPEG`` and ``A.JPEG`` both give ``A``."""
    match = re.fullmatch(r"fg_(.+?)(?:_bg_.+)?", path.stem)
    return match.group(1) if match else path.stem


def _check_logits(logits: Tensor) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise TypeError(f"logits: expected a float tensor (B, 1000), got {describe(logits)}")
    if logits.ndim != 2 or logits.shape[1] not in (1000, len(IMAGENET9_RANGES)):
        raise ValueError(f"logits: expected shape (B, 1000), got {describe(logits)}")


def _table(device: torch.device) -> Tensor:
    """(1000,) int64: the ImageNet-9 class of each ImageNet class, -1 for none."""
    table = torch.full((1000,), -1, dtype=torch.int64)
    for label, ranges in enumerate(IMAGENET9_RANGES.values()):
        for first, last in ranges:
            table[first : last + 1] = label
    return table.to(device)


def _label_of(group: Path) -> int:
    match = re.match(r"(\d\d)_", group.name)
    if match is None or int(match.group(1)) >= len(IMAGENET9_RANGES):
        raise ValueError(f"{group}: expected class folders called 00_dog, 01_bird, ... 08_fish, got {group.name!r}")
    return int(match.group(1))


def _read_mask(path: Path) -> Image.Image:
    """A foreground mask of the release: an array (H, W), true or above 0 on the foreground."""
    try:
        array = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy raises errors of many types on a damaged header
        raise UnreadableImageError(f"unreadable mask file {path}: {error}") from error
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise UnreadableImageError(f"mask file {path}: expected an array (H, W), got {array.dtype} {array.shape}")
    return Image.fromarray((array > 0).astype(np.uint8) * np.uint8(255))
