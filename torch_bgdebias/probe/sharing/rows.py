"""A measurement as named numbers and as tables of classes and images, the input of all exports."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.probe.results.heatmaps import heat_picture
from torch_bgdebias.probe.results.images import Example
from torch_bgdebias.probe.results.measurement import JUDGED, Estimate, Measurement
from torch_bgdebias.probe.results.naming import class_label, set_label
from torch_bgdebias.probe.results.summary import by_gap

__all__ = [
    "ImageTable",
    "Table",
    "Value",
    "class_table",
    "heat_pictures",
    "image_table",
    "numbers_of",
    "shown_answer",
    "shown_label",
    "was_hurt",
]

#: what a cell holds; ``None`` where it is not defined
Value: TypeAlias = str | float | int | bool | None


class Table(NamedTuple):
    """Names of columns and rows."""

    columns: list[str]
    rows: list[list[Value]]


#: an image's row is made on demand
ImageTable: TypeAlias = tuple[list[str], Iterator[list[Value]]]


def numbers_of(report: Measurement) -> dict[str, float]:
    """The headline figures by name, each with the ends of its interval; those that are not defined are left out."""
    estimates: dict[str, Estimate | None] = {"bg_gap": report.bg_gap}
    for variant, result in report.variants.items():
        estimates[f"accuracy/{variant}"] = result.accuracy
        estimates[f"decision_consistency/{variant}"] = result.decision_consistency
        estimates[f"feature_consistency/{variant}"] = result.feature_consistency
    estimates |= {name: score.mean for name, score in report.scores.items()}
    numbers: dict[str, float] = {}  # MLflow keeps files by these names, so none may be a folder of another's
    for name, estimate in estimates.items():
        if estimate is not None:
            numbers |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def class_table(report: Measurement) -> Table:
    """A row a class, the gap farthest from 0 first."""
    variants = [variant for variant in JUDGED if variant in report.variants]
    columns = ["class", "images", "bg_gap", "bg_gap/low", "bg_gap/high", "p corrected"]
    columns += [f"accuracy/{variant}" for variant in variants]
    rows: list[list[Value]] = []
    for row in by_gap(report.per_class):
        gap = row.bg_gap
        ends = (None, None, None) if gap is None else (gap.value, gap.low, gap.high)
        numbers = [*ends, row.gap_p, *(row.accuracy[variant].value for variant in variants)]
        rows.append([row.name, row.n, *map(_defined, numbers)])
    return Table(columns, rows)


def image_table(report: Measurement) -> ImageTable:
    """A row an image, in the order of the results; positions are those in the data set that was measured."""
    images = report.images
    variants = images.variants
    columns = ["position", "id", "label", "hurt"]
    columns += [f"{what}/{variant}" for variant in variants for what in ("answer", "confidence")]
    columns += list(images.scores)

    def rows() -> Iterator[list[Value]]:
        hurt = was_hurt(report)
        for i in range(len(images)):
            position = None if images.position is None else int(images.position[i])
            row: list[Value] = [position, f"{int(images.id[i]):016x}", shown_label(report, i)]
            row.append(None if hurt is None else bool(hurt[i]))
            for variant in variants:
                valid = bool(images.prediction[variant][i] >= 0)
                row.append(shown_answer(report, variant, i) if valid else None)
                row.append(_defined(float(images.confidence[variant][i])) if valid else None)
            yield [*row, *(_defined(float(score[i])) for score in images.scores.values())]

    return columns, rows()


def was_hurt(report: Measurement) -> NDArray[np.bool_] | None:
    """(N,) images that are right on a background of their own class, or as given, and wrong on a random one.

    ``None`` where random backgrounds were not measured or classes are not known.
    """
    images = report.images
    if "mixed_rand" not in images.prediction or not images.labelled:
        return None
    reference = "mixed_same" if "mixed_same" in images.prediction else "original"
    wrong = images.valid("mixed_rand") & ~images.correct("mixed_rand")
    return np.asarray(images.correct(reference) & wrong)


def shown_label(report: Measurement, row: int) -> str | None:
    """The name of an image's class, or of its set of labels; ``None`` where it is not known."""
    images = report.images
    if images.targets is not None:
        return set_label(report, images.targets[row] > 0)
    label = int(images.label[row])
    return None if label < 0 else class_label(report, label)


def shown_answer(report: Measurement, variant: str, row: int) -> str:
    """The name of what the model said of an image."""
    if report.images.targets is not None:
        return set_label(report, report.images.label_answers(variant)[row])
    return class_label(report, int(report.images.prediction[variant][row]))


def heat_pictures(example: Example) -> dict[str, NDArray[np.uint8]]:
    """The original under each of an example's heatmaps, uint8 (h, w, 3), by attribution."""
    original = example.pictures["original"]
    return {name: heat_picture(original, heatmap, example.mask) for name, heatmap in example.heatmaps.items()}


def _defined(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
