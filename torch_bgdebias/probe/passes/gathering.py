"""Backgrounds for the mixed variants, chosen for each image by its own fingerprint.

A draw depends on the seed, the image and the set of backgrounds alone. So batch size, order and number of processes do
not change which image gets which background, and a batch of one has as many partners as any other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_label, describe
from torch_bgdebias.compositing import bounding_boxes, tile_fill

__all__ = ["BackgroundPool", "Gatherer", "Kept"]

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


class Kept(NamedTuple):
    """A background that was kept: rank among its class, fingerprint of its image, class, pixels (C, H, W)."""

    key: int
    id: int
    label: int
    image: Tensor


def mixed_hash(values: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """A new hash of each value under a seed (the finaliser of splitmix64, Steele et al., OOPSLA 2014)."""
    z = values + np.uint64((0x9E3779B97F4A7C15 * (2 * seed + 1)) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Gatherer:
    """Collects backgrounds: of every class the same number, those with the smallest hashes, so in no order's favour.

    Args:
        limit: backgrounds in all; every class keeps its share ``limit // classes``, at least two.
        seed: which backgrounds are kept when there are more.
    """

    def __init__(self, limit: int, seed: int) -> None:
        if limit < 2:
            raise ValueError(f"max_backgrounds: expected at least 2, got {limit}")
        self.limit, self.seed = limit, seed
        self._heaps: dict[int, list[tuple[int, int, Tensor]]] = {}  # largest key first: (-key, id, image)

    @property
    def per_class(self) -> int:
        """How many backgrounds a class keeps, given the classes seen so far (never more later on)."""
        return max(2, self.limit // max(1, len(self._heaps)))

    def add_batch(self, ids: NDArray[np.uint64], image: Tensor, label: Tensor, mask: Tensor) -> None:
        """Take the backgrounds of a batch; foregrounds are tiled over, images that are all foreground left out."""
        boxes = bounding_boxes(mask).cpu()
        whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) >= mask.shape[2] * mask.shape[3]
        labels, keys = label.tolist(), mixed_hash(ids, self.seed).tolist()
        wanted = [i for i, id in enumerate(ids.tolist()) if not whole[i] and self._wants(keys[i], id, labels[i])]
        if not wanted:
            return
        rows = torch.tensor(wanted, device=image.device)
        filled = tile_fill(image[rows], mask[rows]).cpu()
        for i, picture in zip(wanted, filled, strict=True):
            # a clone: a view would keep the whole batch alive
            self.add([Kept(keys[i], int(ids[i]), labels[i], picture.clone())])

    def add(self, entries: Iterable[Kept]) -> None:
        """Take backgrounds that have been prepared already (by another process)."""
        for key, id, label, image in entries:
            if not self._wants(key, id, label):
                continue
            new_class = label not in self._heaps
            heap = self._heaps.setdefault(label, [])
            heapq.heappush(heap, (-key, id, image))
            for other in self._heaps.values() if new_class else (heap,):
                while len(other) > self.per_class:
                    heapq.heappop(other)

    def _wants(self, key: int, id: int, label: int) -> bool:
        heap = self._heaps.get(label, [])
        room = len(heap) < self.per_class or -key > heap[0][0]
        return room and all(id != other for _, other, _ in heap)

    def entries(self) -> list[Kept]:
        """What was kept, sorted by class and key."""
        kept = [Kept(-key, id, label, image) for label, heap in self._heaps.items() for key, id, image in heap]
        return sorted(kept, key=lambda entry: (entry.label, entry.key))

    def pool(self) -> BackgroundPool:
        """The backgrounds as a pool from which no image gets its own."""
        kept = self.entries()
        return BackgroundPool([k.image for k in kept], [k.label for k in kept], [k.id for k in kept])


class BackgroundPool:
    """Backgrounds to paste foregrounds on.

    Args:
        images: N pictures (C, Hb, Wb), float in the images' own units or uint8.
        labels: N classes, in the numbering of the images' labels; -1 unknown.
        ids: fingerprints of the images they were taken from, so that no image gets its own; ``None``: from elsewhere.
        mean: uint8 pictures are scaled to [0, 1] and normalised with ``mean`` and ``std``.
        std: see ``mean``.
    """

    def __init__(
        self,
        images: Sequence[Tensor] | Tensor,
        labels: Sequence[int],
        ids: Sequence[int] | None = None,
        *,
        mean: Any = None,
        std: Any = None,
    ) -> None:
        self.images, self.labels = images, np.asarray(labels, np.int64)
        self._mean, self._std = mean, std
        self._rows = {int(c): np.flatnonzero(self.labels == c) for c in np.unique(self.labels)}
        self._own = (
            {} if ids is None else {(int(c), i): row for row, (c, i) in enumerate(zip(labels, ids, strict=True))}
        )

    @classmethod
    def of(cls, backgrounds: Any, labels: Tensor | None = None, *, mean: Any = None, std: Any = None) -> BackgroundPool:
        """A pool from a tensor (N, C, H, W), or an object with ``images`` and ``labels`` (a ``BackgroundBank``)."""
        if isinstance(backgrounds, BackgroundPool):
            return backgrounds
        if not isinstance(backgrounds, Tensor) and isinstance(getattr(backgrounds, "images", None), Tensor):
            labels = backgrounds.labels if labels is None else labels
            own_mean, own_std = (getattr(backgrounds, name, None) for name in ("mean", "std"))
            mean, std = (own_mean, own_std) if own_mean is not None else (mean, std)
            backgrounds = backgrounds.images
        right = isinstance(backgrounds, Tensor) and (
            backgrounds.dtype == torch.uint8 or backgrounds.is_floating_point()
        )
        if not right or backgrounds.ndim != 4:
            kind = describe(backgrounds)
            raise TypeError(f"backgrounds: expected uint8 or float images (N, C, H, W), or a bank of them, got {kind}")
        if not len(backgrounds):
            raise ValueError("backgrounds: expected at least one image, got none")
        if labels is None:
            return cls(backgrounds, [-1] * len(backgrounds), mean=mean, std=std)
        checked = check_label(torch.as_tensor(labels), len(backgrounds), name="background_labels")
        return cls(backgrounds, checked.tolist(), mean=mean, std=std)

    def __len__(self) -> int:
        return len(self.labels)

    def choose(
        self, name: str, ids: NDArray[np.uint64], labels: Sequence[int], *, num_classes: int, seed: int
    ) -> NDArray[np.int64]:
        """Which background each image gets: rows (B,), -1 where the pool has none of the wanted class.

        *mixed_same*: of the image's class; *mixed_rand*: of a class drawn uniformly from those in the pool, the image's
        own among them, as in ImageNet-9; *mixed_next*: of class (label + 1) mod K. Within the class uniformly.
        """
        first = mixed_hash(ids, 8 * seed + MIXED.index(name))
        second = mixed_hash(first, 1)
        draws = zip(ids.tolist(), labels, first.tolist(), second.tolist(), strict=True)
        return np.array([self._draw(name, *draw, num_classes) for draw in draws], dtype=np.int64)

    def _draw(self, name: str, id: int, label: int, first: int, second: int, num_classes: int) -> int:
        if name == "mixed_rand":
            classes = [c for c in self._rows if self._available(c, id)]
            if not classes:
                return -1
            wanted = classes[first % len(classes)]
        else:
            wanted = label if name == "mixed_same" else (label + 1) % num_classes
        count = self._available(wanted, id)
        if not count:
            return -1
        rows, own, at = self._rows[wanted], self._own.get((wanted, id)), second % count
        return int(rows[at + (own is not None and rows[at] >= own)])  # rows ascend: step over the image's own

    def _available(self, label: int, id: int) -> int:
        rows = self._rows.get(label)
        return 0 if rows is None else len(rows) - ((label, id) in self._own)

    def take(self, rows: NDArray[np.int64], like: Tensor) -> Tensor:
        """The backgrounds (B, C, H, W) of some rows (-1 counts as 0) in the size, units and place of ``like``."""
        pictures = [_sized(self.images[max(int(row), 0)], like) for row in rows]
        stacked = torch.stack(pictures).to(like.device)
        if stacked.shape[1] != like.shape[1]:
            raise ValueError(f"backgrounds: expected {like.shape[1]} channels like the images, got {stacked.shape[1]}")
        if stacked.dtype != torch.uint8:
            return stacked.to(like.dtype)
        stacked = stacked.to(like.dtype) / 255
        if self._mean is None:
            return stacked
        mean, std = (torch.as_tensor(x, dtype=like.dtype, device=like.device) for x in (self._mean, self._std))
        return (stacked - mean.reshape(1, -1, 1, 1)) / std.reshape(1, -1, 1, 1)


def _sized(picture: Tensor, like: Tensor) -> Tensor:
    if picture.shape[1:] == like.shape[2:]:
        return picture
    size = (like.shape[2], like.shape[3])
    resized = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 255).to(torch.uint8) if picture.dtype == torch.uint8 else resized.to(picture.dtype)
