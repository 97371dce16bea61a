"""Reading image files: one place that names the file when something is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

__all__ = [
    "EXTENSIONS",
    "UnreadableImageError",
    "as_tensor",
    "check_size",
    "decoded",
    "first_few",
    "folder_listing",
    "from_16_bit",
    "image_files",
    "open_image",
    "read_image",
    "require_files",
    "resized",
]

#: file name endings that count as images
EXTENSIONS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class UnreadableImageError(OSError):
    """An image file that cannot be decoded: broken, truncated, empty or of an unknown format. Names the file."""


def check_size(size: int | tuple[int, int] | None, *, name: str = "size") -> tuple[int, int] | None:
    """Return ``size`` as (H, W): an int is a square, ``None`` stays ``None``.

    Raises:
        ValueError: not one or two positive integers.
    """
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2 or not all(isinstance(side, int) and side > 0 for side in pair):
        raise ValueError(f"{name}: expected a positive int or (H, W), got {size!r}")
    return pair[0], pair[1]


def image_files(folder: Path) -> list[Path]:
    """All image files under ``folder``, by ending, sorted; hidden files are passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not path.name.startswith(".")
    )


def read_image(path: str | Path, size: tuple[int, int] | None = None) -> Tensor:
    """Read a picture as uint8 (3, H, W); see ``open_image`` for formats and errors.

    Args:
        path: the file.
        size: (H, W) to resize to (bilinear with anti-aliasing).
    """
    return as_tensor(resized(open_image(path), size))


def open_image(path: str | Path) -> Image.Image:
    """Decode a picture to RGB; grey, palette and 16-bit files are converted, transparency is dropped.

    Rotation flags of cameras (EXIF) are not applied: masks would not follow.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded; the message names the file.
    """
    picture = decoded(path)
    return (from_16_bit(picture) if picture.mode.startswith("I") else picture).convert("RGB")


def as_tensor(picture: Image.Image) -> Tensor:
    """An 8-bit picture as uint8 (C, H, W)."""
    values = torch.from_numpy(np.array(picture))
    return values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def resized(picture: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    """``picture`` at ``size`` (H, W), bilinear with anti-aliasing; untouched when it has that size already."""
    if size is None or picture.size == (size[1], size[0]):
        return picture
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def first_few(names: Iterable[object], count: int = 5) -> str:
    """The first names of a list for a message, with how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more


def decoded(path: str | Path) -> Image.Image:
    """Decode any picture as it is, palette indices and all.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded; the message names the file.
    """
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture.copy()
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"unreadable image file {path}: {error}") from error


def folder_listing(folder: Path) -> list[str]:
    """What lies in a folder, for a message."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["no such folder"]


def require_files(paths: Sequence[Path], root: str | Path) -> None:
    """Raise FileNotFoundError that lists the first files that are not there, and how many are not."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{root}: {len(missing)} of {len(paths)} files are missing: {first_few(missing)}")


def from_16_bit(picture: Image.Image) -> Image.Image:
    """A picture of 16-bit whole numbers as 8-bit grey."""
    values = np.asarray(picture).astype(np.int64)
    deep = values.max(initial=0) > 255
    return Image.fromarray((values >> 8 if deep else values).clip(0, 255).astype(np.uint8))
