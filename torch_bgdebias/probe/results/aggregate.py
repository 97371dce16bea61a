"""From the results of every image to the numbers: accuracies, gap, consistencies, with intervals."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from torch_bgdebias._version import __version__
from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval
from torch_bgdebias.metrics.statistics import Floats, Interval
from torch_bgdebias.probe.results.columns import columns_of
from torch_bgdebias.probe.results.images import Example, ImageResults
from torch_bgdebias.probe.results.measurement import ClassResult, Estimate, Measurement, ScoreResult, VariantResult

__all__ = ["measurement_of"]

#: what a mean cannot pass, by the start of its name
_BOUNDS = {"feature_consistency": (-1.0, 1.0), "pixel_ratio/": (0.0, 1.0)}


def measurement_of(
    images: ImageResults,
    *,
    model: str,
    class_names: Sequence[str],
    confidence: float = 0.95,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    examples: Sequence[Example] = (),
) -> Measurement:
    """Compute all numbers from per-image results.

    Args:
        images: per-image results, as in ``report.images``.
        model: the model's name.
        class_names: names of all K classes.
        confidence: of the intervals.
        counts: further counts to carry.
        settings: further settings to carry.
        examples: pictures to carry.
    """
    columns = columns_of(images)
    all_rows = np.ones(len(images), bool)
    variants = {name: _variant(images, columns, name, all_rows, confidence) for name in images.variants}
    per_class = [_class(images, columns, int(label), class_names, confidence) for label in np.unique(images.label)]
    scores = {
        name: ScoreResult(name, _mean(columns[name], name, confidence), int(np.isnan(values).sum()))
        for name, values in images.scores.items()
    }
    return Measurement(
        model=model,
        class_names=list(class_names),
        variants=variants,
        bg_gap=_gap(columns, all_rows, confidence),
        per_class=per_class,
        images=images,
        scores=scores,
        counts={"images": len(images), "classes": len(per_class), **(counts or {})},
        settings={**(settings or {}), "confidence": confidence},
        versions={
            "torch_bgdebias": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        examples=list(examples),
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(interval.value, interval.low, interval.high, interval.n)


def _mean(values: Floats, name: str, confidence: float) -> Estimate:
    bounds = next((b for start, b in _BOUNDS.items() if name.startswith(start)), (-math.inf, math.inf))
    return _estimate(mean_interval(values, confidence=confidence, bounds=bounds))


def _gap(columns: Mapping[str, Floats], rows: NDArray[np.bool_], confidence: float) -> Estimate | None:
    if "accuracy/mixed_same" not in columns or "accuracy/mixed_rand" not in columns:
        return None
    same, rand = columns["accuracy/mixed_same"][rows], columns["accuracy/mixed_rand"][rows]
    return _estimate(mean_difference_interval(same, rand, confidence=confidence))


def _variant(
    images: ImageResults, columns: Mapping[str, Floats], name: str, rows: NDArray[np.bool_], confidence: float
) -> VariantResult:
    consistency = {
        what: _mean(columns[f"{what}/{name}"][rows], what, confidence) if f"{what}/{name}" in columns else None
        for what in ("decision_consistency", "feature_consistency")
    }
    left_out = int((~images.valid(name)).sum())
    return VariantResult(name, _mean(columns[f"accuracy/{name}"][rows], name, confidence), left_out, **consistency)


def _class(
    images: ImageResults, columns: Mapping[str, Floats], label: int, names: Sequence[str], confidence: float
) -> ClassResult:
    rows = np.asarray(images.label == label)

    def grouped(what: str) -> dict[str, Estimate]:
        start = f"{what}/"
        return {c.removeprefix(start): _mean(x[rows], c, confidence) for c, x in columns.items() if c.startswith(start)}

    return ClassResult(
        label=label,
        name=names[label] if label < len(names) else str(label),
        n=int(rows.sum()),
        accuracy=grouped("accuracy"),
        bg_gap=_gap(columns, rows, confidence),
        decision_consistency=grouped("decision_consistency"),
        feature_consistency=grouped("feature_consistency"),
        scores={name: _mean(columns[name][rows], name, confidence) for name in images.scores},
    )
