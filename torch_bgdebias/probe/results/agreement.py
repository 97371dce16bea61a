"""Checks that the figures of a loaded report follow from its per-image results."""

from __future__ import annotations

import math

import numpy as np

from torch_bgdebias.probe.results.columns import columns_by_class, columns_of
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.naming import class_label

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
    for row in report.per_class:
        expected_name = class_label(report, row.label)
        if row.name != expected_name:
            raise ValueError(
                f"per_class: expected {expected_name!r} as class_names has it for {row.label}, got {row.name!r}"
            )
        if row.label not in rows or row.n != rows[row.label].n:
            expected_count = rows[row.label].n if row.label in rows else 0
            raise ValueError(f"per_class: expected {expected_count} images of class {row.name}, got {row.n}")
        for name, accuracy in row.accuracy.items():
            _require(f"per_class: accuracy {name} of {row.name}", accuracy,
                     [_mean(rows[row.label].columns.get(f"accuracy/{name}"))])  # fmt: skip


def _mean(column: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None) -> float:
    return math.nan if column is None or np.isnan(column).all() else float(np.nanmean(column))


def _require(where: str, figure: Estimate, acceptable: list[float]) -> None:
    agrees = any(
        abs(figure.value - value) <= _ROUNDED or (math.isnan(figure.value) and math.isnan(value))
        for value in acceptable
    )
    if not agrees:
        raise ValueError(
            f"{where}: {figure.value:.6g} does not follow from the images' answers in the same report, which give "
            f"{acceptable[0]:.6g}; it was changed by hand, or written by another program"
        )
