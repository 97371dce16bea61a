"""``MaskedImageFolder``: pictures by class with a foreground mask beside each."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from torch_bgdebias.checks import check_option
from torch_bgdebias.data.tensors import JointTransform, MaskedItem, MaskedTensors
from torch_bgdebias.files import (
    UnreadableImageError,
    as_tensor,
    check_size,
    first_few,
    image_files,
    open_image,
    resized,
)
from torch_bgdebias.masks.reading import open_mask, read_mask

__all__ = ["MaskSizeError", "MaskedImageFolder", "MaskedSample"]


class MaskSizeError(ValueError):
    """A mask file that has another size than its image. Names both files and both sizes."""


class MaskedSample(NamedTuple):
    """Where one sample's files are: image, mask, and the class's index."""

    image: Path
    mask: Path
    label: int


class MaskedImageFolder(Dataset[MaskedItem]):
    """``images/<class>/x.jpg`` with ``masks/<class>/x.png``: items (image, label, mask).

    An image and its mask share class and name; the endings may differ (any image format on either side).
    An item is a tuple of image float32 (3, H, W) in [0, 1], label int, and mask float32 (1, H, W) in [0, 1],
    1 = foreground, so the default collate function makes the batch (image, label, mask) of ``BatchSpec()``.

    Args:
        root: folder that holds ``images/`` and ``masks/``.
        size: (H, W), or one int for a square, to which image and mask are resized (the aspect ratio may change).
            ``None`` keeps each file's own size; a loader then needs batches of one or its own collate function.
        transform: called with (image, mask) after resizing, returns both: random crops and flips go here, so that they
            stay in step.
        on_error: ``"raise"``: a missing mask is an error when the folder is opened; an unreadable or truncated file,
            or a mask of another size than its image, when it is read, always naming the file. ``"skip"``: every file
            is decoded once when the folder is opened, samples with something wrong are left out, listed in
            ``.skipped`` as (file, reason), and counted in one warning.
        min_foreground: leave out samples whose mask covers less than this share of the image, in [0, 1] (reads every
            mask once when the folder is opened); how many is in ``.filtered``.
        classes: names of the classes to take, in the order of their indices; by default all, sorted.

    Attributes:
        classes: class names by index.
        class_to_idx: index by class name.
        samples: list of ``MaskedSample(image, mask, label)``.
        skipped: what ``on_error="skip"`` left out, list of (file, reason).
        filtered: how many samples ``min_foreground`` left out.

    Raises:
        FileNotFoundError: no ``images`` folder, no classes, no images, or masks that are missing (the first few and
            their number are listed).
        ValueError: bad ``size``, ``on_error`` or ``min_foreground``, or nothing left after filtering.
    """

    def __init__(
        self,
        root: str | Path,
        size: int | tuple[int, int] | None = None,
        transform: JointTransform | None = None,
        on_error: str = "raise",
        *,
        min_foreground: float = 0.0,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.size = check_size(size)
        self.transform = transform
        self.on_error = check_option(on_error, ("raise", "skip"), name="on_error")
        if not 0.0 <= min_foreground <= 1.0:
            raise ValueError(f"min_foreground: expected a share in [0, 1], got {min_foreground!r}")
        self.skipped: list[tuple[Path, str]] = []
        self.filtered = 0
        self.classes = _classes(self.root, classes)
        self.class_to_idx = {name: index for index, name in enumerate(self.classes)}
        self.samples = self._paired()
        if on_error == "skip":
            self._leave_out_unreadable()
        if min_foreground > 0:
            self._leave_out_small(min_foreground)
        if not self.samples:
            raise ValueError(
                f"{self.root}: no sample is left ({len(self.skipped)} skipped as unreadable or without a mask, "
                f"{self.filtered} with less foreground than min_foreground={min_foreground})"
            )

    @property
    def labels(self) -> list[int]:
        """The class index of every sample."""
        return [sample.label for sample in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> MaskedItem:
        image, label, mask = self._read(self.samples[index])
        pair = (image.float().div_(255), mask.float().div_(255))
        if self.transform is not None:
            pair = self.transform(*pair)
        return pair[0], label, pair[1]

    def tensors(self) -> MaskedTensors:
        """Read everything into uint8 tensors (``transform`` is not applied).

        Raises:
            ValueError: no ``size`` was given and the files are not all of one size.
        """
        read = [self._read(sample) for sample in self.samples]
        shapes = {tuple(image.shape) for image, _, _ in read}
        if len(shapes) > 1:
            raise ValueError(f"size: expected (H, W) to stack images of {len(shapes)} sizes, got None")
        images, labels, masks = zip(*read, strict=True)
        return MaskedTensors(torch.stack(images), torch.tensor(labels), torch.stack(masks))

    def _read(self, sample: MaskedSample) -> tuple[Tensor, int, Tensor]:
        image, mask = read_pair(sample.image, sample.mask, self.size)
        return image, sample.label, mask

    def _paired(self) -> list[MaskedSample]:
        samples, missing = [], []
        found = 0
        for label, name in enumerate(self.classes):
            images, masks = self.root / "images" / name, self.root / "masks" / name
            by_stem = {path.relative_to(masks).with_suffix(""): path for path in reversed(image_files(masks))}
            for path in image_files(images):
                found += 1
                mask = by_stem.get(path.relative_to(images).with_suffix(""))
                if mask is None:
                    missing.append(path)
                else:
                    samples.append(MaskedSample(path, mask, label))
        if not found:
            raise FileNotFoundError(f"{self.root / 'images'}: no image files in {len(self.classes)} class folder(s)")
        if missing and (self.on_error == "raise" or not samples):
            names = (f"masks/{path.relative_to(self.root / 'images').with_suffix('.png')}" for path in missing)
            raise FileNotFoundError(
                f"{self.root}: {len(missing)} of {found} images have no mask: {first_few(names)}; "
                f"add them, or make masks with: bgdebias masks {self.root / 'images'} {self.root / 'masks'}"
            )
        self.skipped += [(path, "no mask") for path in missing]
        return samples

    def _leave_out_unreadable(self) -> None:
        def reason(sample: MaskedSample) -> str | None:
            try:
                read_pair(sample.image, sample.mask, None)
            except (UnreadableImageError, MaskSizeError) as error:
                return str(error)
            return None

        self.samples, bad = _split(self.samples, reason)
        self.skipped += [(sample.image, why) for sample, why in bad]
        if self.skipped:
            warnings.warn(
                f"{self.root}: skipped {len(self.skipped)} of {len(self.samples) + len(self.skipped)} images: "
                + first_few((f"{path.name} ({why})" for path, why in self.skipped), 3),
                stacklevel=3,
            )

    def _leave_out_small(self, least: float) -> None:
        def reason(sample: MaskedSample) -> str | None:
            share = float(read_mask(sample.mask).float().mean()) / 255
            return f"foreground {share:.4f}" if share < least else None

        self.samples, small = _split(self.samples, reason)
        self.filtered = len(small)


def read_pair(image_path: Path, mask_path: Path, size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    """Read an image (3, H, W) and its mask (1, H, W), both uint8, and require that the files have one size.

    Raises:
        UnreadableImageError: one of them cannot be decoded.
        MaskSizeError: their sizes differ.
    """
    image, mask = open_image(image_path), open_mask(mask_path)
    if image.size != mask.size:
        raise MaskSizeError(
            f"mask {mask_path}: expected the size {(image.height, image.width)} (H, W) of its image {image_path}, "
            f"got {(mask.height, mask.width)}"
        )
    return as_tensor(resized(image, size)), as_tensor(resized(mask, size))


def _classes(root: Path, wanted: Sequence[str] | None) -> list[str]:
    images = root / "images"
    if not images.is_dir():
        raise FileNotFoundError(f"{root}: expected images/<class>/ and masks/<class>/ in it, found no folder {images}")
    there = sorted(path.name for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not there:
        raise FileNotFoundError(f"{images}: expected one folder per class, found none")
    if wanted is None:
        return there
    absent = [name for name in wanted if name not in there]
    if absent:
        raise ValueError(f"classes: {first_few(absent)} not in {images}, which has {first_few(there, 20)}")
    return list(wanted)


def _split(
    samples: list[MaskedSample], reason: Callable[[MaskedSample], str | None]
) -> tuple[list[MaskedSample], list[tuple[MaskedSample, str]]]:
    """Samples without and with a reason to leave them out."""
    kept, left_out = [], []
    for sample in samples:
        why = reason(sample)
        if why is None:
            kept.append(sample)
        else:
            left_out.append((sample, why))
    return kept, left_out
