"""Reads mask files as foreground: one at a time, or with an encoding detected from a whole folder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from torch_bgdebias.files import UnreadableImageError, as_tensor, first_few, resized, spread
from torch_bgdebias.masks.contents import MaskContents, Plane, load_mask
from torch_bgdebias.masks.detection import by_alpha, refusal, resolve
from torch_bgdebias.masks.dithering import warn_of_dithering
from torch_bgdebias.masks.encodings import Label, MaskEncoding, MaskEncodingError
from torch_bgdebias.masks.foreground import foreground_of
from torch_bgdebias.masks.outlines import warn_of_outlines
from torch_bgdebias.masks.several import labels_within, not_numbered

__all__ = ["MaskPicture", "MaskReader", "open_mask", "read_mask"]

#: how many pixels of a folder's masks are inspected together, at most
_PIXELS = 50_000_000
#: shares of a picture's edge and of its area from which a folder's masks look inverted
_INVERTED = ((0.75, 0.5), (0.95, 0.1))
#: a mask that covers more than this of every border, and less of the whole, has its background inside
_AROUND = 0.95
#: share of such masks from which figures would be wrong
_SOME_INVERTED = 0.25
#: with so many labels beside 0, and this share of the edge covered by them, 0 may be a class as others are
_SCENE = (3, 0.4)


class MaskPicture(NamedTuple):
    """A mask as 8-bit grey pictures.

    Attributes:
        foreground: 255 = object, 0 = background, soft in between; 0 where it is void.
        void: 255 where a pixel is neither object nor background, ``None`` where there is no such pixel.
    """

    foreground: Image.Image
    void: Image.Image | None


def read_mask(
    path: str | Path, size: tuple[int, int] | None = None, *, encoding: MaskEncoding | str = "auto"
) -> Tensor:
    """Read a foreground mask as uint8 (1, H, W), 255 = foreground; see ``open_mask`` for formats and errors.

    Args:
        path: the file.
        size: (H, W) to resize to (bilinear with anti-aliasing, so hard masks get soft edges).
        encoding: how the file says what is object.
    """
    return as_tensor(resized(open_mask(path, encoding=encoding), size))


def open_mask(path: str | Path, *, encoding: MaskEncoding | str = "auto") -> Image.Image:
    """Decode a foreground mask to 8-bit grey, 255 = foreground, values in between a soft mask; void is 0.

    Args:
        path: an image, or an array (.npy).
        encoding: how the file says what is object; a string is a ``MaskEncoding`` of that kind.

    Raises:
        FileNotFoundError: no such file.
        UnreadableImageError: it cannot be decoded; the message names the file.
        MaskEncodingError: its values do not say what is object; shows them and the options.
    """
    requested = MaskEncoding(encoding) if isinstance(encoding, str) else encoding
    return MaskReader(requested, {}).open(path).foreground


#: the four borders of a picture
_SIDES = (np.s_[0, :], np.s_[-1, :], np.s_[:, 0], np.s_[:, -1])


class Cover(NamedTuple):
    """Where a mask's object is, and where its pixels are not void, (H, W) bool each."""

    inside: Plane
    known: Plane

    def share(self, part: Any) -> float:
        """The object's share of what is known in a part of the picture; 0 where nothing is."""
        n_known = int(self.known[part].sum())
        return int((self.inside & self.known)[part].sum()) / n_known if n_known else 0.0


class MaskReader:
    """Reads the masks of one data set, all in the same way.

    Args:
        wanted: what the user said about the encoding.
        encodings: resolved encodings by kind of file, as ``of_folder`` finds them. A kind of file that is not there is
            judged by each file alone.

    Attributes:
        has_void: whether some of the masks that ``of_folder`` looked at hold pixels that are neither.
        looked_at, empty: how many masks ``of_folder`` looked at, and how many of these hold no object.
        several: a mask with several labels that all count as object although nobody said so, and its labels; ``None``
            where there is none, or where they are numbered 1, 2, ... as instances are.
    """

    def __init__(self, wanted: MaskEncoding, encodings: Mapping[str, MaskEncoding]) -> None:
        self.wanted = wanted
        self.encodings = dict(encodings)
        self.has_void = False
        self.looked_at = self.empty = 0
        self.several: tuple[Path, frozenset[Label]] | None = None

    @classmethod
    def of_folder(
        cls,
        paths: Sequence[Path],
        wanted: MaskEncoding,
        *,
        look_at: int = 48,
        root: str | Path = "",
        strict: bool = True,
    ) -> MaskReader:
        """Look at a folder's masks together.

        Args:
            paths: mask files, of which ``look_at`` are read, evenly spread.
            wanted: what the user said; the labels of ``foreground`` are not judged any further.
            look_at: how many.
            root: the data set's folder, for messages.
            strict: raise where one kind of file (colours among numbers) does not say what is object; else only where
                none does, and reading such a file is the error.

        Raises:
            MaskEncodingError: their values do not say what is object; or they look inverted, or hold no object or no
                background at all, so that nothing can be measured.
        """
        masks: list[MaskContents] = []
        pixels = 0
        for path in spread(paths, look_at):
            try:
                masks.append(load_mask(path))
            except (UnreadableImageError, FileNotFoundError):
                continue  # named when the sample is read
            pixels += masks[-1].values.size
            if pixels > _PIXELS:
                break
        groups: dict[str, list[MaskContents]] = {}
        for mask in masks:
            groups.setdefault(_group(mask, wanted), []).append(mask)
        reader = cls(wanted, {})
        refused: list[tuple[str, MaskEncodingError]] = []
        for name, members in groups.items():
            try:
                reader.encodings[name] = resolve(members, wanted)
            except MaskEncodingError as error:
                refused.append((name, error))
        if refused and (strict or not reader.encodings):
            raise refused[0][1]
        reader._require_measurable([mask for mask in masks if _group(mask, wanted) in reader.encodings], root)
        reader._look_for_several(masks)
        return reader

    def open(self, path: str | Path) -> MaskPicture:
        """Decode one mask.

        Raises:
            FileNotFoundError, UnreadableImageError: as ``open_mask``.
            MaskEncodingError: it holds values that do not go with those of the other masks.
        """
        foreground, void = self._planes(load_mask(path))
        return MaskPicture(
            Image.fromarray(foreground),
            None if void is None else Image.fromarray(void.astype(np.uint8) * np.uint8(255)),
        )

    def labels_of(self, path: Path) -> frozenset[Label]:
        """The labels in a mask that are object where all but background and void is; none where it cannot be read."""
        try:
            return self._labels_within(load_mask(path))
        except (UnreadableImageError, FileNotFoundError):
            return frozenset()  # named when the sample is read

    def _labels_within(self, mask: MaskContents, *, traces: bool = False) -> frozenset[Label]:
        encoding = self.encodings.get(_group(mask, self.wanted))
        if encoding is None or encoding.kind not in ("index", "colour"):
            return frozenset()
        return labels_within(mask, encoding.void or (), traces=traces)

    def _look_for_several(self, masks: Sequence[MaskContents]) -> None:
        if self.wanted.kind != "auto" or self.wanted.foreground is not None:
            return
        several = [(mask.path, labels) for mask in masks if len(labels := self._labels_within(mask)) > 1]
        if several and not_numbered([self._labels_within(mask, traces=True) for mask in masks]):
            self.several = several[0]

    def _planes(self, mask: MaskContents) -> tuple[Plane, Plane | None]:
        group = _group(mask, self.wanted)
        encoding = self.encodings.get(group)
        if encoding is None:
            encoding = resolve([mask], self.wanted)
        elif group == "numbers" and self.wanted == MaskEncoding():
            encoding = _fitting(mask, encoding)
        return foreground_of(mask, encoding)

    def _cover(self, mask: MaskContents) -> Cover | None:
        try:
            foreground, void = self._planes(mask)
        except MaskEncodingError:
            return None  # named when the sample is read
        self.has_void |= void is not None
        return Cover(np.asarray(foreground > 127), np.ones(mask.size, bool) if void is None else ~void)

    def _require_measurable(self, masks: Sequence[MaskContents], root: str | Path) -> None:
        """Object and background in some mask, and not each in the other's place."""
        covered = [(mask, cover) for mask in masks if (cover := self._cover(mask)) is not None]
        covers = [cover for _, cover in covered]
        if not covers:
            return
        self.looked_at, self.empty = len(covers), sum(not cover.inside.any() for cover in covers)
        holds = f"holds {_values_of(masks)}"
        opening = f"{root or masks[0].path}: masks ({len(masks)} looked at, the first {masks[0].path.name}"
        area = float(np.mean([cover.share(np.s_[:, :]) for cover in covers]))
        if area == 0:
            options_text = (
                f" with foreground={list(self.wanted.foreground)}" if self.wanted.foreground is not None else ""
            )
            raise MaskEncodingError(
                f"{opening}, {masks[0].mode}, {holds}): expected an object in some, got none{options_text}; say "
                "foreground=[...] with the values that are object"
            )
        warn_of_outlines([cover.inside for cover in covers], opening)
        warn_of_dithering([cover.inside for cover in covers], opening)
        if self.wanted.foreground is not None:
            return
        edge = float(np.mean([np.mean([cover.share(side) for side in _SIDES]) for cover in covers]))
        if any(edge > least_edge and area > least_area for least_edge, least_area in _INVERTED):
            n_all_edges = sum(all(cover.inside[side].any() for side in _SIDES) for cover in covers)
            raise MaskEncodingError(
                f"{opening}, {masks[0].mode}, {holds}) cover {area:.0%} of their pictures on average and touch every "
                f"border in {n_all_edges} of {len(masks)}: inverted? Say foreground=[0] (--foreground 0) if 0 is the "
                "object, or, if they are right or 0 is a class as others are, foreground=[...] with the values that "
                "are object"
            )
        _look_for_inverted(covered, opening)
        if "numbers" in self.encodings and self.encodings["numbers"].kind == "soft":
            _warn_of_halves(masks, opening)
        self._require_a_background(masks, edge, opening, holds)

    def _require_a_background(self, masks: Sequence[MaskContents], edge: float, where: str, holds: str) -> None:
        """Refuse maps of whole scenes, whose 0 is no background, but for whoever says that it is."""
        guessed = [m for m in masks if self.encodings[_group(m, self.wanted)].kind == "index" and m.values.ndim == 2]
        labels = {level for mask in guessed for level in mask.levels if level not in (0, 255, 65535)}
        if self.wanted.kind == "auto" and len(labels) >= _SCENE[0] and edge > _SCENE[1]:
            raise MaskEncodingError(
                f"{where}, {masks[0].mode}, {holds}): {len(labels)} labels beside 0 cover {edge:.0%} of the pictures' "
                "edges: is 0 the background, or a class as others are, as in maps of whole scenes? Say "
                'encoding="index" (--encoding index) if it is the background, or foreground=[...] with the labels '
                "that are object"
            )


def _look_for_inverted(covered: Sequence[tuple[MaskContents, Cover]], where: str) -> None:
    """Masks that cover all borders and leave background inside, among others that do not: those of a class, often.

    Raises:
        MaskEncodingError: they are so many that figures would be wrong.
    """
    around = [
        mask
        for mask, cover in covered
        if min(cover.share(side) for side in _SIDES) > _AROUND and cover.share(np.s_[:, :]) < _AROUND
    ]
    if not around:
        return
    names = first_few((f"{mask.path.parent.name}/{mask.path.name}" for mask in around), 4)
    text = f"{where}): {len(around)} cover every border and leave background inside, unlike the others ({names}): "
    if len(around) < _SOME_INVERTED * len(covered):
        warnings.warn(text + "inverted? Their objects would be taken for background", stacklevel=6)
        return
    raise MaskEncodingError(
        text
        + "inverted? Turn these round (white minus the mask), or, if they are right, say foreground=[...] with the "
        "values that are object"
    )


def _group(mask: MaskContents, encoding: MaskEncoding) -> str:
    if by_alpha(mask, encoding):
        return "alpha"
    return "colours" if encoding.by_colour or encoding.kind in ("colour", "alpha") else mask.kind


def _fitting(mask: MaskContents, folder: MaskEncoding) -> MaskEncoding:
    """The encoding of one mask of numbers beside those that were inspected together.

    Raises:
        MaskEncodingError: it is encoded in another way.
    """
    white, largest = folder.white or 0.0, max(mask.levels)
    if folder.kind == "soft" and (largest == 0 or white == 1 or largest > white / 4):
        return folder
    if folder.kind == "binary" and (set(mask.levels) <= {0, white} or (mask.lossy and largest > white / 2)):
        return folder
    encoding = resolve([mask], MaskEncoding())
    if folder.kind == "binary" and encoding.kind == "soft" and encoding.white == white:
        return encoding
    hard = {"binary", "index"}
    if {folder.kind, encoding.kind} <= hard and encoding.void in ((), folder.void):
        return (
            folder if folder.void else encoding
        )  # two tools, 0/1 and 0/255 or labels: object is what is not 0 in both
    scale = f" up to {white:g}" if white else f" with void={list(folder.void or ())}"
    raise refusal(
        [mask],
        f"{_values_of([mask])}, where the folder's other masks are {folder.kind}{scale}",
        "save them alike, or say encoding= and foreground=",
    )


def _warn_of_halves(masks: Sequence[MaskContents], where: str) -> None:
    halves = sum(bool({127.0, 128.0} & set(mask.levels)) and len(mask.levels) <= 2 for mask in masks)
    if halves:
        warnings.warn(
            f"{where}): {halves} hold one level of 127 or 128 where others hold 255; it is read as half foreground. If "
            'it is a label, say encoding="index"',
            stacklevel=5,
        )


def _values_of(masks: Sequence[MaskContents]) -> str:
    if any(mask.values.ndim == 3 or mask.palette is not None for mask in masks):
        colours = {colour: None for mask in masks for colour in mask.colours}
        return f"the colours {first_few(colours, 6)}"
    levels = sorted({level for mask in masks for level in mask.levels})
    return f"the values {first_few((f'{level:g}' for level in levels), 6)}"
