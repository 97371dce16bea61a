"""Do the figures of a report that was read follow from what it says of its images?"""

from __future__ import annotations

import math

import numpy as np

from torch_bgdebias.probe.results.columns import columns_by_class, columns_of
from torch_bgdebias.probe.results.measurement import Estimate, Measurement

__all__ = ["require_agreement"]

#: accuracies are means of zeros and ones: what is farther apart than this is another number
_ROUNDED = 1e-6


def require_agreement(report: Measurement) -> None:
    """Raise ValueError where an accuracy, the BG-Gap or a class's name is not that of the images in the same file.

    Of one label an image; label sets' figures are of several kinds, and are not looked at.
    """
    images = report.images
    if not images.labelled or images.targets is not None:
        return
    columns = columns_of(images)
    for name, result in report.variants.items():
        _require(f"variants.{name}.accuracy", result.accuracy, [_mean(columns.get(f"accuracy/{name}"))])
    same, rand = (columns.get(f"accuracy/{name}") for name in ("mixed_same", "mixed_rand"))
    if report.bg_gap is not None and same is not None and rand is not None:
        paired = _mean(same - rand)  # older reports took each accuracy over images of its own
        _require("bg_gap", report.bg_gap, [paired, _mean(same) - _mean(rand)])
    rows = {part.label: part for part in columns_by_class(images)}
    for one in report.per_class:
        known = report.class_names[one.label] if one.label < len(report.class_names) else str(one.label)
        if one.name != known:
            raise ValueError(f"per_class: expected {known!r} as class_names has it for {one.label}, got {one.name!r}")
        if one.label not in rows or one.n != rows[one.label].n:
            there = rows[one.label].n if one.label in rows else 0
            raise ValueError(f"per_class: expected {there} images of class {one.name}, got {one.n}")
        for name, accuracy in one.accuracy.items():
            _require(f"per_class: accuracy {name} of {one.name}", accuracy,
                     [_mean(rows[one.label].columns.get(f"accuracy/{name}"))])  # fmt: skip


def _mean(column: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None) -> float:
    return math.nan if column is None or np.isnan(column).all() else float(np.nanmean(column))


def _require(place: str, figure: Estimate, right: list[float]) -> None:
    near = any(
        abs(figure.value - value) <= _ROUNDED or (math.isnan(figure.value) and math.isnan(value)) for value in right
    )
    if not near:
        raise ValueError(
            f"{place}: {figure.value:.6g} does not follow from the images' answers in the same report, which give "
            f"{right[0]:.6g}; it was changed by hand, or written by another program"
        )
