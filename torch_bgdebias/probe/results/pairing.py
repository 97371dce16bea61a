"""Which images two measurements have in common, and whether they were made alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.measurement import Measurement

__all__ = ["differing_settings", "matched_images"]

#: settings that may differ between two measurements that are compared: they do not change what is asked of a model
_FREE = frozenset(
    {
        "attributions",
        "batch",
        "confidence",
        "device",
        "embedding_layer",
        "epoch",
        "n_resamples",
        "processes",
        "scores",
        "variants",
    }
)


def matched_images(first: ImageResults, second: ImageResults) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows of the images that both have, in the same order; ``None`` without any.

    An image is known by its ``id`` and its label. The n-th copy of an image that occurs several times is paired with
    the n-th copy of the other measurement. Places in a loader say nothing about what an image shows and are not used.
    """
    rows_of = {key: row for row, key in enumerate(_keys(second))}
    pairs = [(row, rows_of[key]) for row, key in enumerate(_keys(first)) if key in rows_of]
    if not pairs:
        return None
    one, two = zip(*pairs, strict=True)
    return np.array(one, np.int64), np.array(two, np.int64)


def differing_settings(first: Measurement, second: Measurement) -> dict[str, tuple[Any, Any]]:
    """Settings that two measurements should share to be compared, by name, with both of their values."""
    names = [n for n in {**first.settings, **second.settings} if n not in _FREE]
    if not (first.settings.get("attributions") and second.settings.get("attributions")):
        names = [n for n in names if n != "explained_class"]
    pairs = {n: (first.settings.get(n), second.settings.get(n)) for n in names}
    differing = {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}
    one, two = ({c.label: c.name for c in measurement.per_class} for measurement in (first, second))
    if any(one[label] != two[label] for label in one.keys() & two.keys()):
        differing["class names"] = (list(one.values()), list(two.values()))
    return differing


def _keys(images: ImageResults) -> list[tuple[int, int, int]]:
    """(id, label, how many rows before have the same two) of every row."""
    seen: dict[tuple[int, int], int] = {}
    keys = []
    for id, label in zip(images.id.tolist(), images.label.tolist(), strict=True):
        copy = seen.get((id, label), 0)
        seen[id, label] = copy + 1
        keys.append((id, label, copy))
    return keys
