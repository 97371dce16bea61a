"""``MaskContents``: the raw contents of a mask file, before they are interpreted."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from torch_bgdebias.files import UnreadableImageError, decoded, first_few
from torch_bgdebias.unread import pages

__all__ = ["MASK_EXTENSIONS", "Colour", "MaskContents", "Plane", "load_mask", "voc_palette"]

#: endings of arrays that are read as masks, beside those of images
MASK_EXTENSIONS = frozenset((".npy", ".npz"))

#: (H, W), or (H, W, 3) of colours
Plane: TypeAlias = np.ndarray[Any, np.dtype[Any]]
#: red, green, blue, 0 to 255
Colour = tuple[int, int, int]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
#: how far the channels of a grey picture may lie apart after a lossy file
_CHROMA_NOISE = 24
#: an array that unpacks to more is taken for an attack
_MOST_BYTES = 1 << 31


@dataclass(frozen=True, eq=False)
class MaskContents:
    """The values of one mask file, in the form that says most about them.

    Args:
        path: the file.
        mode: PIL's mode, or an array's type and shape, for messages.
        kind: ``"numbers"`` (grey values or an array), ``"labels"`` (indices into a palette of label colours),
            ``"colours"`` or ``"palette"`` (indices whose palette has no black: nobody can say which is background).
        values: (H, W) numbers or labels, (H, W, 3) uint8 for colours.
        alpha: (H, W) uint8 where something is transparent, else ``None``.
        lossy: whether the file's format changes values (JPEG).
        palette: (K, 3) uint8, of palette files.
    """

    path: Path
    mode: str
    kind: str
    values: Plane
    alpha: Plane | None = None
    lossy: bool = False
    palette: Plane | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.values.shape[0], self.values.shape[1]

    @cached_property
    def levels(self) -> dict[float, int]:
        """Each value that occurs with its number of pixels, ascending; of numbers and labels."""
        if self.values.dtype == np.uint8:
            histogram = Image.fromarray(self.values).histogram()
            return {float(value): count for value, count in enumerate(histogram) if count}
        values, counts = np.unique(self.values, return_counts=True)
        return dict(zip(values.astype(float).tolist(), counts.tolist(), strict=True))

    @cached_property
    def colours(self) -> dict[Colour, int]:
        """Each colour that occurs with its number of pixels, most frequent first."""
        if self.palette is not None:
            return {self.colour_of(int(index)): count for index, count in self.levels.items()}
        packed = self.as_colours().astype(np.int64) @ np.array([65536, 256, 1])
        values, counts = np.unique(packed, return_counts=True)
        by_count = sorted(zip(counts.tolist(), values.tolist(), strict=True), key=lambda pair: -pair[0])
        return {(value >> 16, value >> 8 & 255, value & 255): count for count, value in by_count}

    def colour_of(self, index: int) -> Colour:
        """The palette's colour of an index; what lies beyond a palette's end is black."""
        assert self.palette is not None
        red, green, blue = self.palette[index].tolist() if index < len(self.palette) else _BLACK
        return red, green, blue

    def flat(self, apart_from: Sequence[float]) -> float:
        """Share of the pixels of other values that have a neighbour of the same value: labels have, soft edges not."""
        between = ~np.isin(self.values, list(apart_from))
        alike = np.zeros(self.size, bool)
        for axis in (0, 1):
            is_repeated = np.diff(self.values.astype(float), axis=axis) == 0
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            alike[tuple(ahead)] |= is_repeated
            alike[tuple(behind)] |= is_repeated
        return float(alike[between].mean()) if between.any() else 1.0

    def smooth(self, step: float) -> float:
        """Share of the changes from a pixel to its neighbour that are at most ``step``: soft masks run, labels jump."""
        changes = np.concatenate([np.abs(np.diff(self.values.astype(float), axis=axis)).ravel() for axis in (0, 1)])
        changes = changes[changes > 0]
        return float((changes <= step).mean()) if len(changes) else 0.0

    @cached_property
    def areas(self) -> frozenset[float]:
        """The values that some pixel shares with all eight around it."""
        low, high = self._around
        return frozenset(np.unique(self.values[1:-1, 1:-1][low == high]).astype(float).tolist())

    def between(self, values: Sequence[float]) -> float | None:
        """Share of the pixels of these values that have a lower and a higher one beside, of any but the outermost.

        ``None`` where no other than the outermost have such a value.
        """
        low, high = self._around
        middle = self.values[1:-1, 1:-1]
        chosen = np.isin(middle, list(values))
        return float(((low < middle) & (middle < high))[chosen].mean()) if chosen.any() else None

    @property
    def _around(self) -> tuple[Plane, Plane]:
        """The lowest and the highest of the nine values around each pixel but the outermost."""
        if min(self.size) < 3:
            return self.values[1:-1, 1:-1], self.values[1:-1, 1:-1]
        low, high = (_of_three(_of_three(self.values, pick).T, pick).T for pick in (np.minimum, np.maximum))
        return low, high

    def as_colours(self) -> Plane:
        """(H, W, 3) uint8."""
        if self.palette is not None:
            table = np.zeros((256, 3), np.uint8)
            table[: len(self.palette)] = self.palette[:256]
            return np.take(table, self.values, axis=0)
        return self.values if self.values.ndim == 3 else np.repeat(self.values[..., None], 3, axis=2)


def _of_three(values: Plane, pick: np.ufunc) -> Plane:
    """The lowest, or highest, of each value, the one above it and the one below it: (H - 2, W)."""
    return np.asarray(pick(pick(values[:-2], values[1:-1]), values[2:]))


def load_mask(path: str | Path) -> MaskContents:
    """Read a mask file: an image, or an array (.npy, .npz) of shape (H, W), (H, W, 1), (1, H, W), or (H, W, 3) uint8.

    Of arrays of 0 and 1 with a channel a class or an object, (K, H, W) or (H, W, K), at most one of them 1 in a pixel,
    labels are made: the channel's number where every pixel is of one, else 0 for none, and numbers from 1.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded, or holds an array of another kind or several pages; the message
            names it.
    """
    path = Path(path)
    if path.suffix.lower() in MASK_EXTENSIONS:
        return _from_array(path)
    picture = decoded(path)
    _require_one_page(path)
    return _from_picture(path, picture)


def _require_one_page(path: Path) -> None:
    try:
        with Image.open(path) as file:
            count = pages(file)
    except Exception as error:  # PIL raises errors of many types on a damaged second page
        raise UnreadableImageError(f"unreadable mask file {path}: {error}") from error
    if count > 1:
        raise UnreadableImageError(
            f"mask file {path}: expected one mask, got {count} pages or frames (an object on each?); join them into "
            "one picture, what is object on any of them"
        )


def voc_palette() -> Plane:
    """PASCAL VOC's 256 label colours (256, 3): bit j of an index goes to the high bits of red, green, blue in turn."""
    colours = np.zeros((256, 3), np.uint8)
    for index in range(256):
        for bit in range(3):
            for channel in range(3):
                colours[index, channel] |= ((index >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def _from_picture(path: Path, picture: Image.Image) -> MaskContents:
    lossy = _is_lossy(path)
    mode = picture.mode
    if mode == "P":
        return _from_palette(path, picture)
    if mode == "1":
        return MaskContents(path, mode, "numbers", np.asarray(picture).astype(np.uint8))
    if mode == "L" or mode.startswith("I") or mode == "F":
        values = np.asarray(picture)
        return MaskContents(path, mode, "numbers", values, lossy=lossy)
    alpha = _alpha_of(picture) if mode in ("LA", "PA", "RGBA", "La", "RGBa") else None
    return _from_colours(path, mode, np.asarray(picture.convert("RGB")), alpha, lossy)


def _is_lossy(path: Path) -> bool:
    """By the first bytes, as names may say something else."""
    with open(path, "rb") as file:
        head = file.read(4096)
    jpeg2000 = head[:4] == b"\xff\x4f\xff\x51" or head[4:8] == b"jP  "  # which seldom keeps every value
    webp = head[8:12] == b"WEBP" and b"VP8L" not in head
    return head[:2] == b"\xff\xd8" or head[4:12] in (b"ftypavif", b"ftypavis") or jpeg2000 or webp


def _alpha_of(picture: Image.Image) -> Plane | None:
    """The opacity of each pixel; ``None`` where it is the same everywhere, which says nothing."""
    alpha = np.asarray(picture.convert("RGBA"))[..., 3]
    return None if 0 < alpha.min() == alpha.max() else alpha


def _from_palette(path: Path, picture: Image.Image) -> MaskContents:
    indices = np.asarray(picture)
    palette = np.asarray(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    alpha = _alpha_of(picture) if "transparency" in picture.info else None
    holds = MaskContents(path, "P", "labels", indices, alpha, palette=palette)
    indices_used = set(holds.colours)
    if bool((palette.max(1, initial=0) == palette.min(1, initial=255)).all()) or indices_used <= {_BLACK, _WHITE}:
        grey = holds.as_colours()[..., 0]  # its colours say it
        return MaskContents(path, "P", "numbers", grey, _informative_alpha(alpha, np.asarray(grey != 0)))
    if len(palette) and tuple(palette[0].tolist()) == _BLACK:
        inside = np.asarray(indices != 0)
        readings = (
            (inside,) if inside.all() else (inside, inside & np.asarray(indices != 255))
        )  # void may be transparent
        return dataclasses.replace(holds, alpha=_informative_alpha(alpha, *readings))
    if _BLACK in indices_used:
        colours = holds.as_colours()
        return MaskContents(path, "P", "colours", colours, _informative_alpha(alpha, np.asarray(colours.any(2))))
    return MaskContents(path, "P", "palette", indices, alpha, palette=palette)


def _informative_alpha(alpha: Plane | None, *insides: Plane) -> Plane | None:
    """Transparency where it says something else than the colours; what is opaque is often just what has one.

    Args:
        alpha: how opaque each pixel is.
        insides: what is not background by its colour, in the ways in which it may be read.
    """
    repeats_mask = alpha is not None and any(bool(((alpha > 127) == inside).all()) for inside in insides)
    return None if repeats_mask else alpha


def _from_colours(path: Path, mode: str, colours: Plane, alpha: Plane | None, lossy: bool) -> MaskContents:
    largest_difference = int((colours.max(2).astype(int) - colours.min(2)).max(initial=0))
    if largest_difference <= (_CHROMA_NOISE if lossy else 0):
        return MaskContents(path, mode, "numbers", colours[..., 1], alpha, lossy)
    return MaskContents(path, mode, "colours", colours, alpha, lossy)


def _from_array(path: Path) -> MaskContents:
    try:
        values = _only_array(path) if path.suffix.lower() == ".npz" else np.load(path, allow_pickle=False)
    except (FileNotFoundError, UnreadableImageError):
        raise
    except Exception as error:  # numpy raises errors of many types on a damaged header
        raise UnreadableImageError(f"unreadable mask file {path}: {error}") from error
    mode = f"array {values.dtype} {values.shape}"
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim == 3 and (labels := _labels_of_channels(values)) is not None:
        values = labels
    if values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8:
        return _from_colours(path, mode, values, None, False)
    if values.ndim != 2 or values.dtype.kind not in "biuf" or 0 in values.shape:
        raise UnreadableImageError(
            f"mask file {path}: expected an array (H, W) of numbers, got {mode}{_advice_on_channels(values)}"
        )
    return MaskContents(path, mode, "numbers", values.astype(np.uint8) if values.dtype == bool else values)


def _only_array(path: Path) -> Plane:
    """The one array of an archive, or the one called mask."""
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    if max(sizes.values(), default=0) > _MOST_BYTES:
        raise UnreadableImageError(f"mask file {path}: an array of {max(sizes.values())} bytes is not unpacked")
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files if len(arrays.files) == 1 else [name for name in arrays.files if name == "mask"]
        if not names:
            raise UnreadableImageError(
                f"mask file {path}: expected one array, or one called mask, got {first_few(arrays.files)}; save the "
                "mask alone"
            )
        values: Plane = arrays[names[0]]
        return values


def _labels_of_channels(values: Plane) -> Plane | None:
    """Label numbers (H, W) of an array with a channel a class or an object; ``None`` where it is none.

    Channels are the axis along which a pixel is at most one of them, the shorter one where both are so.
    """
    if values.dtype.kind not in "biuf" or 0 in values.shape or not bool(((values == 0) | (values == 1)).all()):
        return None
    for axis in sorted((0, 2), key=lambda axis: values.shape[axis]):
        times = values.sum(axis, dtype=np.int64)
        if times.max() <= 1:
            channel = values.argmax(axis)
            return channel if times.min() == 1 else np.where(times == 1, channel + 1, 0)
    return None


def _advice_on_channels(values: Plane) -> str:
    if values.ndim != 3:
        return ""
    if values.dtype.kind in "biu" and bool(((values == 0) | (values == 1)).all()):
        return "; channels overlap: of an object a channel save values.any(axis), of a class a channel one that counts"
    return "; of a channel a class save values.argmax(axis), of probabilities 1 less that of the background"
