"""A measurement as single numbers for a training log."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch_bgdebias.probe.results.measurement import Measurement

__all__ = ["scalars_of"]


def scalars_of(report: Measurement, metrics: Sequence[str]) -> dict[str, float]:
    """Names as in the log, without its prefix.

    Args:
        report: a measurement.
        metrics: which of accuracy, bg_gap, decision_consistency, feature_consistency.
    """
    scalars = {"images": float(len(report.images))}
    if report.images.labelled:
        scalars |= _worst(report)
    if "bg_gap" in metrics and report.bg_gap is not None:
        gap = report.bg_gap
        scalars |= {"bg_gap": gap.value, "bg_gap_low": gap.low, "bg_gap_high": gap.high, "abs_gap": abs(gap.value)}
    for name, result in report.variants.items():
        if "accuracy" in metrics and report.images.labelled:
            scalars[f"acc_{name}"] = result.accuracy.value
            if result.exact_match is not None:
                scalars[f"exact_match_{name}"] = result.exact_match.value
        consistency = {
            "decision_consistency": result.decision_consistency,
            "feature_consistency": result.feature_consistency,
        }
        for figure, estimate in consistency.items():
            if figure in metrics and estimate is not None:
                scalars[f"{figure}_{name}"] = estimate.value
                if name == "mixed_rand":
                    scalars[figure] = estimate.value
    return scalars | {name: score.mean.value for name, score in report.scores.items()}


def _worst(report: Measurement) -> dict[str, float]:
    """The lowest accuracy over variants, over classes, over groups, and of each grouping where there are several."""
    variant = report.worst_variant()
    worst = {"worst_variant": math.nan if variant is None else variant[1].value}
    if report.worst_class is not None:
        worst["worst_class"] = report.worst_class.accuracy.value
    groups = {name: part.accuracy.value for name, part in report.worst_group.items()}
    if groups:
        worst["worst_group"] = min(groups.values())
    return worst | ({f"worst_group_{name}": value for name, value in groups.items()} if len(groups) > 1 else {})
