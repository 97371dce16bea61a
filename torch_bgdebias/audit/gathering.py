"""One pass over the pictures that collects features by view, labels and thumbnails."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from torch_bgdebias.audit.appearance import SIDE, appearance, corner_facts, light, sharpness
from torch_bgdebias.audit.file_facts import FileFacts, fact_table, file_facts, name_words, size_facts
from torch_bgdebias.audit.patches import patch_features
from torch_bgdebias.audit.pictures import Picture, PictureSource
from torch_bgdebias.audit.regions import Box, box_facts, object_box, outside_of
from torch_bgdebias.subsets import batched

__all__ = ["Embed", "Gathered", "Say", "duration", "gather", "thumbnail"]

#: takes one progress message
Say = Callable[[str], None]
_BATCH = 32
_THUMBNAIL = 96


@dataclass
class Gathered:
    """The features of the pictures that an audit has read.

    Attributes:
        labels: (N,) number of each one's class.
        index: (N,) its position in the data set.
        paths: its file, ``None`` where it has none.
        views: view -> (N, D) features, NaN where one is missing.
        masked: (N,) whether it had a mask.
        thumbnails: JPEG, small.
    """

    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    paths: list[Path | None]
    views: dict[str, NDArray[np.float32]]
    masked: NDArray[np.bool_]
    thumbnails: list[bytes]

    def subset(self, rows: NDArray[np.bool_]) -> Gathered:
        """The pictures of ``rows`` (N,)."""
        positions = np.flatnonzero(rows)
        return Gathered(
            self.labels[rows],
            self.index[rows],
            [self.paths[row] for row in positions],
            {name: values[rows] for name, values in self.views.items()},
            self.masked[rows],
            [self.thumbnails[row] for row in positions],
        )


@dataclass
class _Columns:
    labels: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)
    paths: list[Path | None] = field(default_factory=list)
    masked: list[bool] = field(default_factory=list)
    thumbnails: list[bytes] = field(default_factory=list)
    facts: list[FileFacts] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    corners: list[tuple[list[float], list[float]]] = field(default_factory=list)
    pixels: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)


#: embeds pictures (B, 3, H, W) in [0, 1] whose objects are hidden
Embed = Callable[[torch.Tensor], NDArray[np.float32]]


def gather(source: PictureSource, limit: int | None, seed: int, *, embed: Embed | None = None, say: Say) -> Gathered:
    """Read the pictures one batch after the other; what is kept of each are some thousand numbers.

    Args:
        source: the pictures.
        limit: how many at most.
        seed: of their choice.
        embed: a backbone.
        say: receives the number of pictures, and after the first ones the time that the rest will take.
    """
    parts = _Columns()
    expected = source.total if limit is None or source.total is None else min(limit, source.total)
    count_words = "pictures, how many is not known yet" if source.total is None else f"{source.total:,} pictures"
    if expected is not None and source.total is not None and expected < source.total:
        count_words += f", of which {expected:,} are looked at (images= or --images for more)"
    say(count_words)
    start = time.monotonic()
    for pictures in batched(source.pictures(limit, seed), _BATCH):
        _measure(parts, [(picture, _add_facts(parts, index, picture, source)) for index, picture in pictures], embed)
        if len(parts.labels) == _BATCH and expected is not None and expected > 10 * _BATCH:
            seconds = (time.monotonic() - start) * expected / _BATCH
            say(f"about {duration(seconds)} to read them")
    return _gathered(parts)


def duration(seconds: float) -> str:
    """``40 s`` or ``3 min``."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _add_facts(parts: _Columns, index: int, picture: Picture, source: PictureSource) -> Box | None:
    """Add the facts that do not need the pixels in a batch."""
    box = None if picture.mask is None else object_box(picture.mask)
    height, width = picture.pixels.shape[:2]
    parts.labels.append(picture.label)
    parts.index.append(index)
    parts.paths.append(picture.path)
    parts.masked.append(picture.mask is not None)
    parts.thumbnails.append(thumbnail(picture))
    parts.boxes.append(box_facts(box))
    if picture.path is None:
        parts.facts.append({"size": size_facts(width, height, picture.mode)})
    else:
        name = source.classes[picture.label] if picture.label < len(source.classes) else str(picture.label)
        parts.facts.append({**file_facts(picture.path), "names": name_words(picture.path, source.root, name)})
    hidden = None
    if box is not None:
        hidden = np.zeros((height, width), bool)
        rows = slice(int(box.top * height), int(np.ceil(box.bottom * height)))
        hidden[rows, int(box.left * width) : int(np.ceil(box.right * width))] = True
    parts.corners.append(corner_facts(picture.pixels, hidden))
    return box


def _measure(parts: _Columns, batch: list[tuple[Picture, Box | None]], embed: Embed | None) -> None:
    """Measure the pixels of a batch."""
    images, outside = [], []
    for picture, box in batch:
        resized = Image.fromarray(picture.pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        images.append(torch.from_numpy(np.array(resized)).permute(2, 0, 1))
        outside.append(torch.from_numpy(outside_of(picture.mask, box, SIDE)))
    image = torch.stack(images).float() / 255
    outside_mask = torch.stack(outside)[:, None]
    for name, values in appearance(image, outside_mask).items():
        parts.pixels.setdefault(name, []).append(values)
    parts.pixels.setdefault("patches", []).append(patch_features(image, outside_mask))
    everything = torch.ones_like(outside_mask, dtype=torch.float32)
    grey = image.mean(1, keepdim=True)
    whole_picture = {"whole light": light(image, grey, everything), "whole sharpness": sharpness(grey, everything)}
    for name, facts in whole_picture.items():
        parts.pixels.setdefault(name, []).append(facts.numpy())
    if embed is not None:
        mean = (image * outside_mask).sum((2, 3), keepdim=True) / outside_mask.sum((2, 3), keepdim=True).clamp(min=1)
        parts.pixels.setdefault("backbone", []).append(embed(torch.where(outside_mask, image, mean)))


def thumbnail(picture: Picture) -> bytes:
    """A picture small, as JPEG."""
    small = Image.fromarray(picture.pixels)
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()


def _gathered(parts: _Columns) -> Gathered:
    views = {name: np.concatenate(values) for name, values in parts.pixels.items()}
    if parts.labels:
        views["corner facts"] = np.array([facts for facts, _ in parts.corners], np.float32)
        views["corner pixels"] = np.array([tiles for _, tiles in parts.corners], np.float32)
        if any(parts.masked):
            views["box"] = np.array(parts.boxes, np.float32)
        for name in _fact_views(parts.facts):
            views[name] = fact_table([facts.get(name, {}) for facts in parts.facts])[0].astype(np.float32)
    return Gathered(
        np.array(parts.labels, np.int64),
        np.array(parts.index, np.int64),
        parts.paths,
        views,
        np.array(parts.masked, bool),
        parts.thumbnails,
    )


def _fact_views(facts: list[FileFacts]) -> Iterator[str]:
    yield from dict.fromkeys(name for row in facts for name in row)
