"""Figures of parts of the images (classes or groups), significance of their gaps, and the worst part.

The worst of many is worse than it is by chance alone: of ten classes with a true accuracy of 0.8 and 30 images each the
lowest measured one is about 0.68. So the interval of the worst is one of those that hold for all parts at once, each at
level 1 - alpha / M (Bonferroni), and a gap counts as more than chance by a p-value corrected for the number of parts
(Holm).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval
from torch_bgdebias.metrics.statistics import correct_p_values, paired_permutation_test
from torch_bgdebias.probe.results.columns import columns_by_class, columns_of
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.measurement import JUDGED, ClassResult, Estimate, WorstPart

__all__ = ["Part", "classes_as_parts", "gap_of", "groups_as_parts", "mean_of", "results_of", "worst_of"]

#: what a mean cannot pass, by the start of its name
_BOUNDS = {
    "feature_consistency": (-1.0, 1.0),
    "pixel_ratio/": (0.0, 1.0),
    "accuracy/": (0.0, 1.0),
    "exact_match/": (0.0, 1.0),
    "decision_consistency": (0.0, 1.0),
}


@dataclasses.dataclass(frozen=True)
class Part:
    """A class or a group.

    Attributes:
        label: its number.
        name: its name.
        n: its images; of a label in label sets those that have it.
        columns: figures by name, one number for each image that they are over.
        unit: what these images belong to; ``None``: each its own.
    """

    label: int
    name: str
    n: int
    columns: Mapping[str, Floats]
    unit: NDArray[np.str_] | None


def classes_as_parts(images: ImageResults, names: Sequence[str]) -> list[Part]:
    """The classes that occur, or all labels."""
    parts = []
    for of_class in columns_by_class(images):
        name = names[of_class.label] if of_class.label < len(names) else str(of_class.label)
        unit = None if images.unit is None else images.unit[of_class.rows]
        parts.append(Part(of_class.label, name, of_class.n, of_class.columns, unit))
    return parts


def groups_as_parts(images: ImageResults, grouping: str) -> list[Part]:
    """The groups of one grouping, by name."""
    columns, names = columns_of(images), images.groups[grouping]
    parts = []
    for number, name in enumerate(np.unique(names)):
        rows = np.asarray(names == name)
        unit = None if images.unit is None else images.unit[rows]
        inside = {column: values[rows] for column, values in columns.items()}
        parts.append(Part(number, str(name), int(rows.sum()), inside, unit))
    return parts


def results_of(parts: Sequence[Part], confidence: float) -> list[ClassResult]:
    """The figures of each part, with p-values of the gaps corrected for the number of parts."""
    raw = [_gap_p_value(part) for part in parts]
    corrected = correct_p_values(raw, "holm").tolist() if raw else []
    return [_result(part, confidence, p) for part, p in zip(parts, corrected, strict=True)]


def worst_of(parts: Sequence[Part], confidence: float) -> WorstPart | None:
    """The lowest accuracy of any part on the images as they are, on own or on random backgrounds."""
    cells = [
        (part, variant)
        for part in parts
        for variant in JUDGED
        if f"accuracy/{variant}" in part.columns and not bool(np.isnan(part.columns[f"accuracy/{variant}"]).all())
    ]
    if not cells:
        return None
    level = 1 - (1 - confidence) / len(cells)
    estimates = [mean_of(f"accuracy/{v}", part.columns[f"accuracy/{v}"], level, part.unit) for part, v in cells]
    lowest = min(range(len(cells)), key=lambda i: (estimates[i].value, -estimates[i].n))
    floor = min(0.0 if math.isnan(estimate.low) else estimate.low for estimate in estimates)
    part, variant = cells[lowest]
    return WorstPart(part.name, variant, estimates[lowest], among=len(cells), floor=floor)


def mean_of(name: str, values: Floats, confidence: float, unit: NDArray[np.str_] | None) -> Estimate:
    """The mean of a figure, by its name as in ``columns_of``."""
    bounds = next((b for start, b in _BOUNDS.items() if name.startswith(start)), (-math.inf, math.inf))
    return Estimate.of(mean_interval(values, groups=unit, confidence=confidence, bounds=bounds))


def gap_of(columns: Mapping[str, Floats], confidence: float, unit: NDArray[np.str_] | None) -> Estimate | None:
    """Accuracy on own less on random backgrounds, of images that stand on both; ``None`` unless both were measured."""
    if "accuracy/mixed_same" not in columns or "accuracy/mixed_rand" not in columns:
        return None
    same, rand = columns["accuracy/mixed_same"], columns["accuracy/mixed_rand"]
    one_only = np.isnan(same) | np.isnan(rand)  # another mix of classes on either side would count as a gap
    both_variants = (np.where(one_only, np.nan, column) for column in (same, rand))
    return Estimate.of(mean_difference_interval(*both_variants, groups=unit, confidence=confidence))


def _result(part: Part, confidence: float, p: float) -> ClassResult:
    def grouped(what: str) -> dict[str, Estimate]:
        start = f"{what}/"
        columns = {name: values for name, values in part.columns.items() if name.startswith(start)}
        return {n.removeprefix(start): mean_of(n, values, confidence, part.unit) for n, values in columns.items()}

    figures = ("accuracy", "decision_consistency", "feature_consistency", "exact_match")
    others = [name for name in part.columns if not name.startswith(tuple(f"{what}/" for what in figures))]
    return ClassResult(
        label=part.label,
        name=part.name,
        n=part.n,
        accuracy=grouped("accuracy"),
        bg_gap=gap_of(part.columns, confidence, part.unit),
        decision_consistency=grouped("decision_consistency"),
        feature_consistency=grouped("feature_consistency"),
        scores={name: mean_of(name, part.columns[name], confidence, part.unit) for name in others},
        gap_p=p,
    )


def _gap_p_value(part: Part) -> float:
    same, rand = part.columns.get("accuracy/mixed_same"), part.columns.get("accuracy/mixed_rand")
    if same is None or rand is None:
        return math.nan
    return paired_permutation_test(same, rand, groups=part.unit).p_value
