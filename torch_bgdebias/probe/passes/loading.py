"""Iterates over a loader: the position of each image in the data set, and the share of one process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler, Subset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.class_names import data_sets_within
from torch_bgdebias.probe.passes.grouping import by_position
from torch_bgdebias.probe.passes.identity import KnownFiles
from torch_bgdebias.probe.passes.settings import EvaluationSettings
from torch_bgdebias.subsets import in_plain_order, labels_of, length_of, over_positions, spread_positions

__all__ = ["Share", "known_files", "repeated_images", "rng_untouched", "unshown_void"]


@contextlib.contextmanager
def rng_untouched() -> Iterator[None]:
    """Put the global random states of Python, NumPy and torch back afterwards: opening a loader draws from them."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's state is what must be kept
    cuda_in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = list(range(torch.cuda.device_count())) if cuda_in_use else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def unshown_void(loader: Any) -> str:
    """What to say about a data set whose masks hold void that its batches do not show; empty for any other."""
    holders = [d for d in data_sets_within(loader) if hasattr(d, "with_void")]
    if not holders or holders[0].with_void or not getattr(holders[0], "has_void", False):
        return ""
    dataset = holders[0]
    return (
        "mask: some pixels of the data's masks are void, neither object nor background, and count as background here: "
        f"open the data with {type(dataset).__name__}(..., with_void=True), so that they count as neither"
    )


def repeated_images(loader: Any) -> str:
    """What to say about a trainer's loader whose sampler repeats images to give all processes as many; else empty."""
    sampler = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return ""
    count = length_of(sampler.dataset)
    n_repeated = sampler.total_size - count
    if n_repeated <= 0:
        return ""
    return (
        f"loader: the trainer's sampler repeats {n_repeated} of {count} images, so that all processes have as many; "
        "each counts once here, in the module's own metrics twice: metrics.not_padding says which to leave out"
    )


def known_files(loader: Any) -> KnownFiles | None:
    """The images' ids from the loader's data set, or the one that it is a subset of, if it provides them."""
    if type(loader) is not DataLoader or not in_plain_order(loader):
        return None
    dataset, positions = loader.dataset, None
    while type(dataset) is Subset:
        indices = list(dataset.indices)
        positions = indices if positions is None else [indices[index] for index in positions]
        dataset = dataset.dataset
    name_of = getattr(dataset, "image_id", None)
    if not callable(name_of):
        return None
    is_ours = type(dataset).__module__.partition(".")[0] == __name__.partition(".")[0]
    may_change = not is_ours or getattr(dataset, "transform", None) is not None
    return KnownFiles(
        name_of if positions is None else (lambda index: name_of(positions[index])), may_change=may_change
    )


class Share:
    """The part of a loader that one of several processes evaluates, with every image's position in the whole.

    Together the processes see every image exactly once: a plain ``DataLoader`` over a map-style data set is split by
    image, without the padding that a distributed sampler adds; other loaders are split by batch. A loader that is
    already split (a distributed sampler that is not plain) is taken as it is, and its padding is recognised.

    Args:
        loader: any iterable of batches that can be iterated more than once.
        spec: where the images are in a batch (to count them).
        rank: this process.
        world: number of processes.
        max_images: evaluate this many images, spread over a map-style data set and its classes, the first ones
            elsewhere.
        max_batches: evaluate as many images as so many batches hold, spread in the same way; elsewhere stop after so
            many of the loader's batches.
        move: applied to every batch before anything else uses it, such as the transfer to a device.
        in_order: go through a map-style data set in its own order, whatever a shuffling loader does.

    Raises:
        TypeError: not an iterable, or an iterator, which would be used up after the first pass.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        spec: BatchSpec,
        *,
        rank: int = 0,
        world: int = 1,
        max_images: int | None = None,
        max_batches: int | None = None,
        move: Callable[[Any], Any] | None = None,
        in_order: bool = False,
    ) -> None:
        if isinstance(loader, Iterator):
            raise TypeError(f"loader: expected an iterable that starts again each time, got {type(loader).__name__}")
        if not isinstance(loader, Iterable):
            raise TypeError(f"loader: expected an iterable of batches, got {type(loader).__name__}")
        self.spec, self.rank, self.world, self._move = spec, rank, world, move
        self.max_images, self.max_batches = max_images, max_batches
        self._positions: NDArray[np.int64] | None = None
        self._length: int | None = None  # of a data set that a foreign distributed sampler has split
        self._loader: Iterable[Any] = loader
        shuffled = in_order and isinstance(loader, DataLoader) and type(loader.sampler) is RandomSampler
        if shuffled or world > 1 or max_images is not None or max_batches is not None:
            self._split(loader)

    @property
    def spread(self) -> bool:
        """Whether a subset is spread over the data set, rather than the first images of the loader."""
        return self._positions is not None

    def need_order(self, settings: EvaluationSettings) -> Share:
        """This object, if names given by position in the data set can be matched with images.

        Raises:
            ValueError: there are such names, and the loader does not go through its data set in order.
        """
        sources = [settings.unit, *settings.group_sources.values()]
        loader = self._loader
        reordered = isinstance(loader, DataLoader) and type(loader.sampler) is not SequentialSampler
        if any(by_position(source) for source in sources) and reordered and not self.spread:
            raise ValueError(
                "groups, unit: a list of names goes by the images' places in the data set, but the loader does not go "
                "through it in order; pass a loader with shuffle=False, or have the batch hold the names"
            )
        return self

    def _split(self, loader: Iterable[Any]) -> None:
        if type(loader) is DataLoader and in_plain_order(loader):
            count = length_of(loader.dataset)
            limits = [count] if self.max_images is None else [count, self.max_images]
            if self.max_batches is not None and loader.batch_size is not None:
                limits.append(self.max_batches * loader.batch_size)
                self.max_batches = None
            positions = spread_positions(count, min(limits), labels_of(loader.dataset))
            self._positions = positions[self.rank :: self.world]
            self._loader = over_positions(loader, self._positions.tolist())
        elif isinstance(loader, DataLoader) and self.world > 1:
            sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
            if isinstance(sampler, DistributedSampler):
                self._length = length_of(sampler.dataset)

    def __len__(self) -> int:
        """Number of batches, 0 when the loader does not say."""
        count = len(self._loader) if isinstance(self._loader, Sized) else 0
        return count if self.max_batches is None else min(count, self.max_batches)

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_], Any]]:
        """Batches with the positions (B,) of their images and which of them count, (B,)."""
        n_seen = 0
        for number, batch in enumerate(self._loader):
            if self.max_batches is not None and number >= self.max_batches:
                return
            if self.max_images is not None and self._positions is None and n_seen >= self.max_images:
                return
            batch = batch if self._move is None else self._move(batch)
            size = len(self.spec.image_of(batch))
            positions = np.arange(n_seen, n_seen + size)
            n_seen += size
            if self._positions is not None:
                positions = self._positions[positions]
                yield positions, np.ones(size, bool), batch
            elif self._length is not None:  # a distributed sampler deals the images out in turns and pads the end
                positions = positions * self.world + self.rank
                yield positions, positions < self._length, batch
            elif number % self.world == self.rank:
                limit = n_seen if self.max_images is None else self.max_images
                yield positions, positions < limit, batch
