"""Backgrounds for the mixed variants, chosen for each image by its own fingerprint.

A draw depends on the seed, the image and the set of backgrounds alone. So batch size, order and number of processes do
not change which image gets which background, and a batch of one has as many partners as any other.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torch_bgdebias.backgrounds.numbering import numbered_as
from torch_bgdebias.backgrounds.pool import BackgroundSource, Pool, as_pool
from torch_bgdebias.checks import describe
from torch_bgdebias.compositing import fills_image, tile_fill, without_void
from torch_bgdebias.probe.passes.labels import set_codes
from torch_bgdebias.probe.passes.settings import EvaluationSettings

__all__ = ["BackgroundPool", "GatheredBackground", "Gatherer", "pool_for"]

MIXED = ("mixed_same", "mixed_rand", "mixed_next")


class GatheredBackground(NamedTuple):
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
        self.limit, self.seed = limit, seed
        self._heaps: dict[int, list[tuple[int, int, Tensor]]] = {}  # largest key first: (-key, id, image)

    @property
    def per_class(self) -> int:
        """How many backgrounds a class keeps, given the classes seen so far (never more later on)."""
        return max(2, self.limit // max(1, len(self._heaps)))

    def add_batch(
        self, ids: NDArray[np.uint64], image: Tensor, label: Tensor, mask: Tensor, void: Tensor | None = None
    ) -> None:
        """Take the backgrounds of a batch; foregrounds are tiled over, images that are all foreground left out.

        Void is painted over with the background's mean colour: it may be the object's edge.
        """
        full = fills_image(mask).tolist()
        labels, keys = label.tolist(), mixed_hash(ids, self.seed).tolist()
        selected = [i for i, id in enumerate(ids.tolist()) if not full[i] and self._wants(keys[i], id, labels[i])]
        if not selected:
            return
        rows = torch.tensor(selected, device=image.device)
        images = without_void(image[rows], mask[rows], None if void is None else void[rows])
        filled = tile_fill(images, mask[rows]).cpu()
        for i, picture in zip(selected, filled, strict=True):
            # a clone: a view would keep the whole batch alive
            self.add([GatheredBackground(keys[i], int(ids[i]), labels[i], picture.clone())])

    def add(self, entries: Iterable[GatheredBackground]) -> None:
        """Take backgrounds that have been prepared already (by another process)."""
        for key, id, label, image in entries:
            if not self._wants(key, id, label):
                continue
            new_class = label not in self._heaps
            heap = self._heaps.setdefault(label, [])
            heapq.heappush(heap, (-key, id, image))
            limit = self.per_class
            for full_heap in self._heaps.values() if new_class else (heap,):
                while len(full_heap) > limit:
                    heapq.heappop(full_heap)

    def _wants(self, key: int, id: int, label: int) -> bool:
        heap = self._heaps.get(label, [])
        has_room = len(heap) < self.per_class or -key > heap[0][0]
        return has_room and all(id != other_id for _, other_id, _ in heap)

    def entries(self) -> list[GatheredBackground]:
        """What was kept, sorted by class and key."""
        heaps = self._heaps.items()
        entries = [GatheredBackground(-key, id, label, image) for label, heap in heaps for key, id, image in heap]
        return sorted(entries, key=lambda entry: (entry.label, entry.key))

    def pool(self) -> BackgroundPool:
        """The backgrounds as a pool from which no image gets its own."""
        entries = self.entries()
        labels = torch.tensor([entry.label for entry in entries], dtype=torch.int64)
        return BackgroundPool(
            Pool([entry.image for entry in entries], labels, own=True), [entry.id for entry in entries]
        )


def pool_for(
    backgrounds: BackgroundPool | BackgroundSource,
    labels: Tensor | None,
    settings: EvaluationSettings,
    class_names: Sequence[str] = (),
) -> BackgroundPool:
    """A pool whose labels are numbered as those of the images.

    Args:
        backgrounds: anything that `as_pool` takes.
        labels: (N,) classes; (N, L) label sets where the images have such. A bank's own classes say nothing about label
            sets: without ``labels`` only mixed_rand is possible there.
        settings: say what the images' labels are, and their normalisation.
        class_names: of the images' labels 0, 1, ..., where they are known: a bank whose categories have names is
            numbered by them, since its category 0 need not be what stands behind class 0.

    Raises:
        ValueError: labels of another shape, or lists of forbidden foregrounds, which go by class, without classes.
    """
    classes = settings.task != "multilabel" and settings.spec.label is not None
    if isinstance(backgrounds, BackgroundPool):
        return backgrounds
    if classes:
        pool = as_pool(backgrounds, labels=labels, mean=settings.mean, std=settings.std)
        needed = [name for name in settings.mixed if name != "mixed_rand"]
        return BackgroundPool(numbered_as(pool, class_names, needed, option="class_names=", stacklevel=3))
    pool = as_pool(backgrounds, mean=settings.mean, std=settings.std)
    if pool.forbidden is not None:
        reason = (
            "images have no label" if settings.spec.label is None else "an image of task='multilabel' has no one class"
        )
        raise ValueError(f"backgrounds: lists of forbidden foregrounds go by class, but {reason}; pass bank.images")
    if settings.task != "multilabel":
        return BackgroundPool(pool)
    codes = None
    if labels is not None:
        if labels.shape[:1] != (len(pool),) or labels.ndim != 2 or bool(((labels != 0) & (labels != 1)).any()):
            raise ValueError(
                f"background_labels: expected label sets ({len(pool)}, L) of 0 and 1 for task='multilabel', got "
                f"{describe(labels)}"
            )
        codes = set_codes(labels)
    return BackgroundPool(dataclasses.replace(pool, labels=codes))


class BackgroundPool:
    """Backgrounds to paste foregrounds on, chosen by fingerprints.

    Args:
        pool: the backgrounds; their labels are in the numbering of the images' labels, -1 unknown.
        ids: fingerprints of the images they were taken from, so that no image gets its own; ``None``: from elsewhere.
    """

    def __init__(self, pool: Pool, ids: Sequence[int] | None = None) -> None:
        self._pool, self._checked = pool, False
        labels = [-1] * len(pool) if pool.labels is None else pool.labels.tolist()
        self.labels = np.asarray(labels, np.int64)
        self._rows = {int(c): np.flatnonzero(self.labels == c) for c in np.unique(self.labels)}
        self._own = (
            {} if ids is None else {(int(c), i): row for row, (c, i) in enumerate(zip(labels, ids, strict=True))}
        )
        self._classes = list(self._rows)
        # image -> classes whose one background is its own
        self._only_own: dict[int, set[int]] = {}
        for c, i in self._own:
            if len(self._rows[c]) == 1:
                self._only_own.setdefault(i, set()).add(c)

    @classmethod
    def of(
        cls,
        backgrounds: BackgroundPool | BackgroundSource,
        labels: Tensor | None = None,
        *,
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> BackgroundPool:
        """A pool from anything that `as_pool` takes; arguments as there."""
        if isinstance(backgrounds, BackgroundPool):
            return backgrounds
        return cls(as_pool(backgrounds, labels=labels, mean=mean, std=std))

    def __len__(self) -> int:
        return len(self.labels)

    def choose(
        self, name: str, ids: NDArray[np.uint64], labels: Sequence[int], *, num_classes: int, seed: int
    ) -> NDArray[np.int64]:
        """Which background each image gets: rows (B,), -1 where the pool has none of the wanted class.

        *mixed_same*: of the image's class; *mixed_rand*: of a class drawn uniformly from those in the pool, the image's
        own among them, as in ImageNet-9; *mixed_next*: of class (label + 1) mod K. Within the class uniformly.
        """
        class_hashes = mixed_hash(ids, 8 * seed + MIXED.index(name))
        row_hashes = mixed_hash(class_hashes, 1)
        permitted = self._pool.allowed(torch.as_tensor(labels, dtype=torch.int64))
        rows = np.full(len(labels), -1, np.int64)
        draws = zip(ids.tolist(), labels, class_hashes.tolist(), row_hashes.tolist(), strict=True)
        for index, draw in enumerate(draws):
            allowed = None if permitted is None else permitted[index].numpy()
            rows[index] = self._draw(name, *draw, num_classes, allowed)
        return rows

    @property
    def restricted(self) -> bool:
        """Whether some classes must not get some of the backgrounds."""
        return self._pool.forbidden is not None

    def met_again(self, labels: NDArray[np.int64], ids: NDArray[np.uint64]) -> float:
        """Share of its images' fingerprints that are among those of a later pass; 1 for backgrounds from elsewhere."""
        if not self._own:
            return 1.0
        later = set(zip(labels.tolist(), ids.tolist(), strict=True))
        return sum(key in later for key in self._own) / len(self._own)

    @property
    def only_class(self) -> int | None:
        """The class that all backgrounds are of; ``None`` where there are several, or none is known."""
        return self._classes[0] if len(self._classes) == 1 and self._classes[0] >= 0 else None

    def draw(self, ids: NDArray[np.uint64], labels: Sequence[int], *, number: int, seed: int) -> NDArray[np.int64]:
        """The ``number``-th of several independent draws for each image: rows (B,) with replacement, each background
        that its class may have with the same chance; -1 where it may have none."""
        hashes = mixed_hash(mixed_hash(ids, 8 * seed + len(MIXED)), number)
        permitted = self._pool.allowed(torch.as_tensor(labels, dtype=torch.int64))
        if self._pool.usable is not None:
            usable = self._pool.usable.cpu()[None].expand(len(labels), -1)
            permitted = usable if permitted is None else permitted.cpu() & usable
        if permitted is None:
            return (hashes % np.uint64(len(self))).astype(np.int64)
        rows = np.full(len(labels), -1, np.int64)
        for index, (hash, allowed) in enumerate(zip(hashes.tolist(), permitted.numpy(), strict=True)):
            choice = np.flatnonzero(allowed)
            rows[index] = choice[hash % len(choice)] if len(choice) else -1
        return rows

    def _draw(
        self,
        name: str,
        id: int,
        label: int,
        class_hash: int,
        row_hash: int,
        num_classes: int,
        allowed: NDArray[np.bool_] | None,
    ) -> int:
        if name == "mixed_rand":
            classes = self._classes_for(id, allowed)
            if not classes:
                return -1
            target_class = classes[class_hash % len(classes)]
        else:
            target_class = label if name == "mixed_same" else (label + 1) % num_classes
        rows = self._available(target_class, id, allowed)
        return int(rows[row_hash % len(rows)]) if len(rows) else -1

    def _classes_for(self, id: int, allowed: NDArray[np.bool_] | None) -> list[int]:
        """Classes with a background for this image: of a thousand all but one or two, so those are taken out."""
        if allowed is not None:
            return [c for c in self._rows if len(self._available(c, id, allowed))]
        lost = self._only_own.get(id)
        return self._classes if lost is None else [c for c in self._classes if c not in lost]

    def _available(self, label: int, id: int, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Rows of a class, ascending, without the image's own and without those that its foreground must not get."""
        rows = self._rows.get(label, np.empty(0, np.int64))
        own_row = self._own.get((label, id))
        rows = rows if own_row is None else rows[rows != own_row]
        return rows if allowed is None else rows[allowed[rows]]

    def take(self, rows: NDArray[np.int64], like: Tensor) -> Tensor:
        """The backgrounds (B, C, H, W) of some rows (-1 counts as 0) in the size, units and place of ``like``."""
        if not self._checked:  # once, wherever the images are: a measurement may wait for the device
            self._pool.check_units(like[:4].cpu())
            self._checked = True
        return self._pool.take(torch.from_numpy(rows), like)
