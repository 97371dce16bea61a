"""Files among pictures that are not read: undecodable formats, and pages after the first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from torch_bgdebias.files import first_few, spread

__all__ = ["PICTURES_NOT_READ", "apart", "pages", "what_is_not_read"]

#: endings of pictures, videos and arrays that are not decoded
PICTURES_NOT_READ = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".dcm", ".dds", ".dng", ".exr", ".h5", ".hdf5", ".hdr", ".heic", ".heif"),
        *(".jxl", ".mat", ".mha", ".mov", ".mp4", ".nef", ".nii", ".npy", ".npz", ".nrrd", ".orf", ".pdf", ".psd"),
        *(".raf", ".raw", ".rw2", ".svg", ".tga", ".xcf"),
    )
)
#: endings of formats in which a file often holds several pictures
_PAGED = (".avif", ".gif", ".png", ".tif", ".tiff", ".webp")
#: so many of them are looked into
_LOOKED_INTO = 100


def apart(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Pictures that are read, and those that are not."""
    unread = [path for path in paths if path.suffix.lower() in PICTURES_NOT_READ]
    return [path for path in paths if path.suffix.lower() not in PICTURES_NOT_READ], unread


def pages(picture: Image.Image) -> int:
    """How many pictures an opened file holds: pages of a TIFF, frames of an animation; its previews do not count."""
    return 1 if picture.format == "MPO" else int(getattr(picture, "n_frames", 1))


def what_is_not_read(read: Sequence[Path], unread: Sequence[Path]) -> list[str]:
    """What to say about files that are not read, and about those of which only the first picture is."""
    messages = []
    if unread:
        kinds = first_few(sorted({path.suffix.lower() for path in unread}))
        messages.append(
            f"{len(unread)} files of formats that are not read were passed over ({kinds}: "
            f"{first_few((path.name for path in unread), 3)}); save them as PNG or JPEG"
        )
    paged = [path for path in spread([p for p in read if p.suffix.lower() in _PAGED], _LOOKED_INTO) if _pages_of(path)]
    if paged:
        messages.append(
            f"{len(paged)} files hold several pages or frames, of which the first is read "
            f"({first_few((path.name for path in paged), 3)}); save each picture in a file of its own"
        )
    return messages


def _pages_of(path: Path) -> bool:
    """Whether there are several; reading the picture is what names a broken file."""
    try:
        with Image.open(path) as file:
            return pages(file) > 1
    except Exception:  # PIL's decoders raise errors of many types on damaged files
        return False
