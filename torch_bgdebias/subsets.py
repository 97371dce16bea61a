"""Representative subsets of a data set, spread over its length and its classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, SequentialSampler

__all__ = [
    "batched",
    "in_plain_order",
    "labels_of",
    "length_of",
    "over_positions",
    "spread_batches",
    "spread_positions",
]

_GOLDEN = (5**0.5 - 1) / 2

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``, the last of which may be shorter."""
    remaining = iter(items)
    return iter(lambda: list(islice(remaining, size)), [])


def length_of(dataset: object) -> int:
    """The number of items of a map-style data set.

    Raises:
        TypeError: it has no length.
    """
    if not isinstance(dataset, Sized):
        raise TypeError(f"dataset: expected a map-style data set with a length, got {type(dataset).__name__}")
    return len(dataset)


def spread_positions(count: int, keep: int, labels: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """``keep`` of the positions 0 ... count - 1, ascending.

    Evenly spaced where that gives every class its share. Else, with labels, every class gets its share (and at least
    one image while there are enough), evenly spaced within the class; without labels the spacing follows the golden
    ratio, which falls into step with no order of classes.

    Args:
        count: images of the data set.
        keep: how many to choose.
        labels: (count,) their classes, where they are known without opening a picture.
    """
    keep = min(keep, count)
    if keep <= 0:
        return np.zeros(0, np.int64)
    if keep == count:
        return np.arange(count)
    if labels is None:
        order = np.argsort((np.arange(count) * _GOLDEN) % 1.0, kind="stable")
        return np.sort(order[:keep]).astype(np.int64)
    even = np.linspace(0, count - 1, keep).round().astype(np.int64)
    classes, totals = np.unique(labels, return_counts=True)
    share = keep * totals / count
    number = np.array([(labels[even] == c).sum() for c in classes])
    if bool((np.abs(number - share) < 1).all()) and (keep < len(classes) or bool((number > 0).all())):
        return even
    positions = []
    for c, n_wanted in zip(classes, _whole_shares(share, keep), strict=True):
        members = np.flatnonzero(labels == c)
        steps = (np.arange(n_wanted) + 0.5) / max(n_wanted, 1) * len(members)
        positions.append(members[steps.astype(np.int64)])
    return np.sort(np.concatenate(positions)).astype(np.int64)


def labels_of(dataset: Any) -> NDArray[np.int64] | None:
    """(N,) classes that a data set knows without opening its pictures (``labels`` or ``targets``); ``None`` else."""
    indices = getattr(dataset, "indices", None)
    if indices is not None and hasattr(dataset, "dataset"):  # torch.utils.data.Subset
        inner = labels_of(dataset.dataset)
        return None if inner is None else inner[np.asarray(indices, np.int64)]
    for name in ("labels", "targets"):
        values = getattr(dataset, name, None)
        if isinstance(values, Tensor):
            values = values.cpu().numpy()
        if not isinstance(values, (list, tuple, np.ndarray)) or not isinstance(dataset, Sized):
            continue
        array = np.asarray(values)
        if array.shape == (len(dataset),) and array.dtype.kind in "iu":
            return array.astype(np.int64)
    return None


def spread_batches(loader: Iterable[Any], max_batches: int | None) -> Iterable[Any]:
    """So many batches of a loader: of one that goes through its data set in order, as many images spread over it and
    its classes; of any other the first ones."""
    ordered = type(loader) is DataLoader and in_plain_order(loader) and type(loader.sampler) is SequentialSampler
    if max_batches is None or not isinstance(loader, DataLoader) or not ordered or loader.batch_size is None:
        return islice(loader, max_batches)
    count = length_of(loader.dataset)
    positions = spread_positions(count, min(count, max_batches * loader.batch_size), labels_of(loader.dataset))
    return over_positions(loader, positions.tolist())


def in_plain_order(loader: DataLoader[Any]) -> bool:
    """Whether the loader shows each item of its data set once, so that positions can be dealt out anew."""
    if isinstance(loader.dataset, IterableDataset) or loader.batch_size is None:
        return False
    return type(loader.sampler) in (SequentialSampler, DistributedSampler) or (
        type(loader.sampler) is RandomSampler and not loader.sampler.replacement and loader.sampler._num_samples is None
    )


def over_positions(loader: DataLoader[Any], positions: list[int]) -> DataLoader[Any]:
    """The same loader over some positions of its data set, in this order."""
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=positions,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
    )


def _whole_shares(share: NDArray[np.float64], keep: int) -> NDArray[np.int64]:
    """Whole numbers that add up to ``keep``, near the shares, none of them 0 while there are enough."""
    counts = np.floor(share).astype(np.int64)
    if keep >= len(share):
        counts = np.maximum(counts, 1)
    while counts.sum() > keep:
        counts[np.argmax(np.where(counts > (keep >= len(share)), counts - share, -np.inf))] -= 1
    while counts.sum() < keep:
        counts[np.argmax(share - counts)] += 1
    return counts
