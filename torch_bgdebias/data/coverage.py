"""Selects pictures whose object covers neither too little nor too much of them."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from torch.utils.data import Dataset, Subset

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_share, describe
from torch_bgdebias.compositing import object_share

__all__ = ["with_coverage"]


def with_coverage(
    dataset: Dataset[Any], least: float = 0.04, most: float = 0.64, *, spec: BatchSpec | None = None
) -> Subset[Any]:
    """The items of a masked data set whose object covers between ``least`` and ``most`` of the picture.

    Objects of a few pixels vanish in a layer's maps, and where an object fills its picture there is no background to
    speak of: On Background Bias of Post-Hoc Concept Embeddings (arXiv 2504.08602) takes 4 to 64 %. Every item is read
    once.

    Args:
        dataset: map-style.
        least, most: shares in [0, 1], both included.
        spec: where the mask is in an item.

    Raises:
        TypeError: a data set without a length.
        ValueError: shares outside [0, 1] or not in order, or no such item.
    """
    check_share(least, name="least")
    check_share(most, name="most")
    if least > most:
        raise ValueError(f"least, most: expected the smaller share first, got {least} and {most}")
    if not isinstance(dataset, Sized):
        raise TypeError(f"dataset: expected one with a length, got {describe(dataset)}")
    batch_spec = spec or BatchSpec()
    shares = [float(object_share(batch_spec.mask_of(dataset[index])[None])[0]) for index in range(len(dataset))]
    indices = [index for index, share in enumerate(shares) if least <= share <= most]
    if not indices:
        found_range = f"they cover {100 * min(shares):.1f} to {100 * max(shares):.1f} %" if shares else "there is none"
        raise ValueError(
            f"least, most: no object covers {100 * least:g} to {100 * most:g} % of its picture; {found_range}"
        )
    return Subset(dataset, indices)
