"""Computes the numbers of a report from per-image results: accuracies, gap, consistencies, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from torch_bgdebias.class_names import told_apart
from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.probe.results.columns import columns_of
from torch_bgdebias.probe.results.images import Example, ImageResults
from torch_bgdebias.probe.results.measurement import Estimate, Measurement, ScoreResult, VariantResult, versions_in_use
from torch_bgdebias.probe.results.parts import classes_as_parts, gap_of, groups_as_parts, mean_of, results_of, worst_of

__all__ = ["measurement_of"]


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
    """Compute all numbers from per-image results; arguments as `torch_bgdebias.probe.summarise` has them."""
    columns, unit, names = columns_of(images), images.unit, told_apart(class_names)
    classes = classes_as_parts(images, names)
    groups = {name: groups_as_parts(images, name) for name in images.groups}
    per_class = results_of(classes, confidence)
    scores = {
        name: ScoreResult(name, mean_of(name, columns[name], confidence, unit), int(np.isnan(values).sum()))
        for name, values in images.scores.items()
    }
    return Measurement(
        model=model,
        class_names=names,
        variants={name: _variant(images, columns, name, confidence) for name in images.variants},
        bg_gap=gap_of(columns, confidence, unit),
        per_class=per_class,
        per_group={name: results_of(parts, confidence) for name, parts in groups.items()},
        worst_class=worst_of(classes, confidence),
        worst_group={name: worst for name, parts in groups.items() if (worst := worst_of(parts, confidence))},
        images=images,
        scores=scores,
        counts={"images": len(images), **_parts_counted(images, len(per_class)), **(counts or {})},
        settings={**(settings or {}), "confidence": confidence},
        versions=versions_in_use(),
        examples=list(examples),
    )


def _parts_counted(images: ImageResults, number: int) -> dict[str, int]:
    class_count = {} if not images.labelled else {"classes" if images.targets is None else "labels": number}
    return class_count if images.unit is None else {"units": len(np.unique(images.unit)), **class_count}


def _variant(images: ImageResults, columns: Mapping[str, Floats], name: str, confidence: float) -> VariantResult:
    def figure(kind: str) -> Estimate | None:
        column = columns.get(f"{kind}/{name}")
        return None if column is None else mean_of(f"{kind}/{name}", column, confidence, images.unit)

    return VariantResult(
        name,
        figure("accuracy") or Estimate(math.nan, math.nan, math.nan, 0),
        int((~images.valid(name)).sum()),
        decision_consistency=figure("decision_consistency"),
        feature_consistency=figure("feature_consistency"),
        exact_match=figure("exact_match"),
    )
