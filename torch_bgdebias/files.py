"""The one reader of image files: which files count, their order, how they are decoded, errors with file names.

Folders, banks, masks and the command line all come here, so that a file means the same to each of them.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from torch_bgdebias.depth import (
    DEEP_COLOURS,
    DEEP_ENDINGS,
    WHITES,
    UnreadableImageError,
    brightest,
    eight_bits,
    has_deep_colours,
    has_depth,
    is_deep,
    require_bright,
    white_of,
)

__all__ = [
    "EXTENSIONS",
    "UnreadableImageError",
    "as_tensor",
    "category_folders",
    "content_id",
    "decoded",
    "first_few",
    "folder_listing",
    "image_files",
    "open_image",
    "orientation",
    "read_image",
    "require_files",
    "resized",
    "same_form",
    "spread",
    "turned",
    "white_level",
]

#: file name endings that count as images
EXTENSIONS = frozenset(
    (
        *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
        *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
    )
)
#: folders that systems and programs leave behind; hidden ones are passed over anyway
_FOREIGN = frozenset(
    ("#recycle", "$recycle.bin", "@eadir", "__macosx", "__pycache__", "lost+found", "system volume information")
)
#: a white that is so many times another one leaves of that one's pictures an eighth of their brightness
_MUCH_BRIGHTER = 8
#: share of transparent and opaque pixels that a picture with transparency has at least
_CLEAR = 0.05
_ORIENTATION_TAG = 0x0112
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Item = TypeVar("Item")


def image_files(folder: Path, *, extensions: Collection[str] = EXTENSIONS) -> list[Path]:
    """All image files under ``folder``, by ending, sorted.

    Linked folders are followed, but not to where the way came from: to a folder on it, or to one that ``folder`` lies
    in, whose other parts would count as this one's. Hidden files and folders, and what
    systems leave behind (``__MACOSX``, ``@eaDir``, ...), are passed over at any depth. A link to a file that is not
    there is listed: reading it is an error with its name. A folder that is not there has no files.
    """
    if not folder.is_dir():
        return []
    paths: list[Path] = []
    start = Path(os.path.realpath(folder))
    pending = [(str(folder), frozenset(map(str, (start, *start.parents))))]
    while pending:
        directory, above = pending.pop()
        for entry in _entries(directory):
            if _is_folder(entry):
                real = os.path.realpath(entry.path)
                if real not in above:
                    pending.append((entry.path, above | {real}))
            elif os.path.splitext(entry.name)[1].lower() in extensions:
                paths.append(Path(entry.path))
    return sorted(paths)


def category_folders(root: Path) -> list[Path]:
    """The folders of classes or categories in ``root``: neither hidden nor left behind by a system, in label order.

    The order is that of the names as text; names that are all whole numbers come in the order of the numbers.

    Raises:
        ValueError: two names that differ only in their Unicode form, and so look alike.
    """
    names = [entry.name for entry in _entries(str(root)) if _is_folder(entry)]
    by_form: dict[str, str] = {}
    for name in names:
        twin = by_form.setdefault(same_form(name), name)
        if twin != name:
            raise ValueError(f"{root}: expected folders of different names, got two that look alike: {name}; join them")
    numbered = all(name.isascii() and name.isdecimal() for name in names)
    return [root / name for name in sorted(names, key=lambda name: (int(name) if numbered else 0, name))]


def same_form(name: str) -> str:
    """A name in one Unicode form: macOS writes an accent as a character of its own, others do not."""
    return unicodedata.normalize("NFC", name)


def read_image(path: str | Path, size: tuple[int, int] | None = None, *, white: float | None = None) -> Tensor:
    """Read a picture as uint8 (3, H, W); see ``open_image`` for formats and errors.

    Args:
        path: the file.
        size: (H, W) to resize to (bilinear with anti-aliasing).
        white: value of white where the file has more than 8 bits; see ``open_image``.
    """
    return as_tensor(resized(open_image(path, white=white), size))


def open_image(
    path: str | Path, mode: str = "RGB", *, at_least: tuple[int, int] | None = None, white: float | None = None
) -> Image.Image:
    """Decode a picture to 8 bits as a viewer shows it.

    Rotation flags of cameras (EXIF) are applied. What is transparent becomes black: the colours that hide under it are
    nobody's background. Transparency that is the same everywhere says nothing and is passed over.

    Args:
        path: the file.
        mode: ``"RGB"`` or ``"L"`` (grey).
        at_least: (H, W) that the picture is going to cover: a JPEG may then be decoded at a fraction of its size, twice
            what is needed, which is much faster.
        white: value that becomes 255 in files of more than 8 bits, one for a whole data set (``white_level`` finds it).
            ``None``: found from this file alone. Colours of 16 bits are read at 8, with 65535 as white, and refused
            where they stop so far below it that another one must be meant.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded, or holds values outside of 0 to ``white``, or colours of 16 bits
            with another white than 65535, or another band in place of transparency; the message names it.
    """
    picture = decoded(path, at_least=at_least, mode=mode)
    if is_deep(picture):
        picture = eight_bits(picture, path, white)
    elif picture.mode in DEEP_COLOURS and has_deep_colours(path):
        require_bright(picture, path, white)
    elif picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        if Path(path).suffix.lower() in (".tif", ".tiff"):
            _require_transparency(picture, path)
        picture = _over_black(picture)
    try:
        return picture.convert(mode)
    except ValueError as error:  # a colour space without a way to RGB
        raise UnreadableImageError(f"unreadable image file {path}: {error}") from error


def decoded(path: str | Path, *, at_least: tuple[int, int] | None = None, mode: str = "RGB") -> Image.Image:
    """Decode any picture as it is, palette indices and all, turned as its EXIF flag says.

    Args:
        path: the file.
        at_least: as in ``open_image``.
        mode: what a JPEG decoded at a fraction of its size is going to be converted to.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded, or is so large that it may be an attack; the message names it.
    """
    try:
        with Image.open(path) as file:
            if at_least is not None:
                _draft(file, at_least, mode)
            file.load()
            turn = _orientation_of(file)
            return turned(file, turn)
    except FileNotFoundError as error:
        if Path(path).is_symlink():
            raise UnreadableImageError(f"unreadable image file {path}: a link to a file that is not there") from error
        raise
    except Exception as error:  # PIL's decoders raise errors of many types on damaged files
        raise UnreadableImageError(f"unreadable image file {path}: {error}") from error


def orientation(path: str | Path) -> int:
    """The EXIF orientation that a camera wrote into a file, 1 (upright) to 8; 1 where there is none."""
    try:
        with Image.open(path) as file:
            return _orientation_of(file)
    except Exception:  # reading the picture is what names a broken file
        return 1


def turned(picture: Image.Image, turn: int) -> Image.Image:
    """A picture as stored, turned upright by its EXIF orientation."""
    return picture.transpose(_TRANSPOSED[turn]) if turn in _TRANSPOSED else picture


def content_id(*paths: str | Path) -> str:
    """A hash of the files' contents, 32 hexadecimal digits, independent of their names and places."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def white_level(paths: Sequence[Path], *, look_at: int = 256) -> float | None:
    """The value of white in pictures of more than 8 bits, one for a whole data set; ``None`` where all have 8.

    A scanner of 12 bits writes 0 to 4095 into files of 16: taken by the file type its pictures are nearly black, and
    taken picture by picture their brightness is lost. So the largest value of the pictures decides, rounded up to that
    of a bit depth (8, 10, 12, 14, 16); float pictures within [0, 1] have 1.

    Args:
        paths: the data set's files.
        look_at: how many deep pictures are read, evenly spread.

    Raises:
        UnreadableImageError: values below 0, not finite, or above 65535; colours of 16 bits that use 14 or less.
    """
    candidates = [path for path in spread(paths, 20 * look_at) if path.suffix.lower() in DEEP_ENDINGS]
    deep = [path for path in candidates if has_depth(path)]
    coloured = [path for path in candidates if has_deep_colours(path)]
    whites = [white_of(picture, path) for picture, path in _readable(spread(deep, look_at))]
    colours = [(picture, path) for picture, path in _readable(spread(coloured, look_at))]
    if colours:
        picture, path = max(colours, key=lambda pair: brightest(pair[0]))
        require_bright(picture, path, None)
        whites.append(WHITES[-1])
    _warn_of_dark(whites, paths)
    return max(whites, default=None)


def _warn_of_dark(whites: Sequence[float], paths: Sequence[Path]) -> None:
    """Warn where one picture's white makes most of the others nearly black."""
    dark = [white for white in whites if white * _MUCH_BRIGHTER <= max(whites)]
    if 2 * len(dark) > len(whites):
        warnings.warn(
            f"{os.path.commonpath(map(str, paths))}: white is {max(whites):g}, as the brightest of {len(whites)} "
            f"pictures has it, and {len(dark)} stop at {max(dark):g} or below and come out nearly black; if they have "
            "scales of their own bring them to one, or say what is white with white=",
            stacklevel=3,
        )


def spread(items: Sequence[Item], count: int) -> list[Item]:
    """At most ``count`` of the items, evenly spread over all, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(count - 1, 1))] for i in range(count)]


def as_tensor(picture: Image.Image) -> Tensor:
    """An 8-bit picture as uint8 (C, H, W)."""
    values = torch.from_numpy(np.array(picture))
    return values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def resized(picture: Image.Image, size: tuple[int, int] | None, interpolation: str = "bilinear") -> Image.Image:
    """``picture`` at ``size`` (H, W), with anti-aliasing; untouched when it has that size already."""
    if size is None or picture.size == (size[1], size[0]):
        return picture
    return picture.resize((size[1], size[0]), Image.Resampling[interpolation.upper()])


def first_few(names: Iterable[object], count: int = 5) -> str:
    """The first names of a list for a message, with how many more there are."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more


def folder_listing(folder: Path) -> list[str]:
    """What lies in a folder, for a message."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ["no such folder"]


def require_files(paths: Sequence[Path], root: str | Path) -> None:
    """Raise FileNotFoundError that lists the first files that are not there, and how many are not."""
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{root}: {len(missing)} of {len(paths)} files are missing: {first_few(missing)}")


def _entries(directory: str) -> list[os.DirEntry[str]]:
    """The entries of a directory, but for hidden and foreign ones."""
    with os.scandir(directory) as listing:
        return [entry for entry in listing if entry.name[0] != "." and entry.name.lower() not in _FOREIGN]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link to itself is none, and fails when it is read."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _draft(file: Image.Image, at_least: tuple[int, int], mode: str) -> None:
    """Let a JPEG be decoded at a fraction of its size, twice what covers ``at_least``."""
    height, width = reversed(at_least) if _orientation_of(file) > 4 and file.format == "JPEG" else at_least
    scale = max(height / file.height, width / file.width)
    if scale < 0.5:
        file.draft(mode, (int(2 * scale * file.width), int(2 * scale * file.height)))


def _orientation_of(file: Image.Image) -> int:
    try:
        value = file.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF data beside a good picture
        return 1
    return value if value in _TRANSPOSED else 1


def _require_transparency(picture: Image.Image, path: str | Path) -> None:
    """Refuse a last channel that is said to be transparency and varies without ever being clear.

    Raises:
        UnreadableImageError: such a channel, another band of a satellite's for instance.
    """
    counts = picture.convert("RGBA").getchannel("A").histogram()
    total = sum(counts)
    if counts[0] + counts[255] < _CLEAR * total and max(counts) < total:
        share = 1 - (counts[0] + counts[255]) / total
        raise UnreadableImageError(
            f"image file {path}: its last channel is said to be transparency, and {share:.0%} of its pixels are "
            "neither transparent nor opaque: is it another band, such as near infrared? Save the picture as RGB"
        )


def _over_black(picture: Image.Image) -> Image.Image:
    layers = picture.convert("RGBA")
    lowest_alpha, highest_alpha = layers.getchannel("A").getextrema()
    if lowest_alpha == highest_alpha:
        return layers.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers)


def _readable(paths: Iterable[Path]) -> Iterator[tuple[Image.Image, Path]]:
    for path in paths:
        try:
            yield decoded(path), path
        except UnreadableImageError:
            continue
