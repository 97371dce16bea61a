"""Backgrounds from files and datasets: scanning, threaded reading, and the handling of unreadable images."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_image, check_option, check_size
from torch_bgdebias.compositing import FILLS
from torch_bgdebias.files import (
    EXTENSIONS,
    UnreadableImageError,
    as_tensor,
    category_folders,
    first_few,
    folder_listing,
    image_files,
    open_image,
    white_level,
)
from torch_bgdebias.unread import PICTURES_NOT_READ, apart, what_is_not_read
from torch_bgdebias.writing import warn_if_unfinished

__all__ = ["ImageFiles", "cover", "read_dataset"]


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """Image files with their categories, and how to read them.

    Args:
        paths: in the order of the categories, sorted within each.
        labels: category of each path, ``None`` without category folders.
        classes: names of the categories, ``None`` without.
        size: (H, W) to read them at.
        channels: 3 (RGB) or 1 (grey).
        on_error: "raise" or "skip".
        white: value of white in files of more than 8 bits, one for all; ``None`` where there are none.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...] | None
    size: tuple[int, int]
    channels: int = 3
    on_error: str = "raise"
    white: float | None = None

    @classmethod
    def scan(
        cls,
        root: str | os.PathLike[str],
        size: int | tuple[int, int],
        *,
        classes: Sequence[str] | None = None,
        channels: int = 3,
        on_error: str = "raise",
    ) -> ImageFiles:
        """Find the images under ``<root>/<category>/``, or in ``root`` itself when it has no category folders."""
        check_option(channels, (1, 3), name="channels")
        check_option(on_error, ("raise", "skip"), name="on_error")
        height, width = check_size(size)
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"root: expected a folder of images, got {folder}, which is not there")
        warn_if_unfinished(folder)
        categories = [path.name for path in category_folders(folder)]
        if classes is not None:
            missing = [name for name in classes if name not in categories]
            if missing or not classes:
                raise ValueError(f"classes: expected some of the categories {categories[:20]}, got {[*classes][:20]}")
            categories = list(classes)
        if not categories:
            paths = tuple(_pictures(folder, folder))
            if not paths:
                raise FileNotFoundError(f"root: expected <category>/*.jpg in {folder}, got {_listing(folder)}")
            return cls(paths, None, None, (height, width), channels, on_error, white_level(paths))
        per_category = [_pictures(folder / name, folder) for name in categories]
        empty = [name for name, members in zip(categories, per_category, strict=True) if not members]
        if len(empty) == len(categories) or (empty and on_error == "raise"):
            raise FileNotFoundError(f"root: expected images in every category of {folder}, got none in {empty[:8]}")
        paths = tuple(path for members in per_category for path in members)
        labels = tuple(label for label, members in enumerate(per_category) for _ in members)
        return cls(paths, labels, tuple(categories), (height, width), channels, on_error, white_level(paths))

    def read(self, position: int) -> Tensor | OSError:
        """One image (C, H, W) uint8, or the error that names the file it could not be read from."""
        path = self.paths[position]
        try:
            return cover(path, self.size, self.channels, self.white)
        except FileNotFoundError as error:  # gone since the folder was scanned
            return UnreadableImageError(f"unreadable image file {path}: {error}")
        except UnreadableImageError as error:
            return error

    def only(self, positions: Sequence[int]) -> ImageFiles:
        """The files at ``positions``, with the same categories."""
        labels = None if self.labels is None else tuple(self.labels[i] for i in positions)
        return dataclasses.replace(self, paths=tuple(self.paths[i] for i in positions), labels=labels)

    def readable(self, threads: int | None = None) -> Iterator[tuple[int, Tensor]]:
        """Position and image (C, H, W) uint8 of every readable file; skipped ones are counted in one warning."""
        skipped: list[OSError] = []
        with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
            for position, result in enumerate(_bounded_map(pool, self.read, len(self.paths))):
                if isinstance(result, Tensor):
                    yield position, result
                elif self.on_error == "raise":
                    raise result
                else:
                    skipped.append(result)
        self.report_skipped(skipped)
        if len(skipped) == len(self.paths):
            raise ValueError(f"root: expected readable images, got {len(skipped)} that are not; first: {skipped[0]}")

    def read_all(self, threads: int | None = None) -> tuple[Tensor, Tensor | None]:
        """All readable images (N, C, H, W) uint8 with their labels; skipped files are counted in one warning."""
        images = torch.empty(len(self.paths), self.channels, *self.size, dtype=torch.uint8)
        readable: list[int] = []
        for position, image in self.readable(threads):
            images[len(readable)] = image
            readable.append(position)
        images = images if len(readable) == len(images) else images[: len(readable)].clone()
        return images, None if self.labels is None else torch.tensor([self.labels[i] for i in readable])

    def report_skipped(self, skipped: list[OSError]) -> None:
        """Warn how many images were left out, naming the first few."""
        if skipped:
            examples = "; ".join(map(str, skipped[:3]))
            warnings.warn(f"skipped {len(skipped)} of {len(self.paths)} images: {examples}", stacklevel=4)


def cover(path: Path, size: tuple[int, int], channels: int = 3, white: float | None = None) -> Tensor:
    """Read an image, scale it until it covers ``size`` (H, W), crop the centre: uint8 (C, H, W)."""
    height, width = size
    picture = open_image(path, "RGB" if channels == 3 else "L", at_least=size, white=white)
    scale = max(height / picture.height, width / picture.width)
    crop_w, crop_h = width / scale, height / scale
    left, top = (picture.width - crop_w) / 2, (picture.height - crop_h) / 2
    box = (left, top, left + crop_w, top + crop_h)
    return as_tensor(picture.resize((width, height), Image.Resampling.BILINEAR, box=box))


def read_dataset(
    dataset: Dataset[Any],
    fill: str,
    spec: BatchSpec | None,
    *,
    dtype: torch.dtype | None,
    batch_size: int,
    num_workers: int,
) -> tuple[Tensor, Tensor | None]:
    """Backgrounds and labels of a masked dataset; see `BackgroundBank.from_dataset`."""
    remove = FILLS[check_option(fill, tuple(FILLS), name="fill")]
    if dtype is not None and dtype != torch.uint8 and not dtype.is_floating_point:
        raise ValueError(f"dtype: expected torch.uint8, a floating point dtype or None, got {dtype}")
    spec = spec or BatchSpec()
    loader: Iterable[Any] = DataLoader(dataset, batch_size=batch_size, num_workers=num_workers)
    images, labels = [], []
    for batch in loader:
        image = spec.image_of(batch)
        pixels = image / 255 if image.dtype == torch.uint8 else check_image(image)
        filled = remove(pixels, spec.mask_of(batch))
        target = dtype or image.dtype
        images.append(_quantise(filled) if target == torch.uint8 else filled.to(target))
        if spec.label is not None:
            labels.append(spec.label_of(batch))
    if not images:
        raise ValueError("dataset: expected at least one image, got an empty dataset")
    return torch.cat(images), torch.cat(labels) if labels else None


def _pictures(folder: Path, root: Path) -> list[Path]:
    """The image files of a folder; what is not read is counted in a warning."""
    pictures, unread = apart(image_files(folder, extensions=EXTENSIONS | PICTURES_NOT_READ))
    for message in what_is_not_read(pictures, unread):
        warnings.warn(f"{root}: {message}", stacklevel=5)
    return pictures


def _quantise(image: Tensor) -> Tensor:
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"dataset: expected images in [0, 1] for dtype=torch.uint8, got [{low:g}, {high:g}]")
    return (image * 255).round().to(torch.uint8)


def _listing(folder: Path) -> str:
    names = folder_listing(folder)
    return f"{len(names)} other entries: {first_few(names)}" if names else "an empty folder"


def _bounded_map(pool: ThreadPoolExecutor, function: Any, count: int, ahead: int = 256) -> Iterator[Any]:
    """``pool.map`` over range(count) that never holds more than ``ahead`` finished images."""
    for start in range(0, count, ahead):
        yield from pool.map(function, range(start, min(start + ahead, count)))
