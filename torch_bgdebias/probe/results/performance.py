"""Measures beyond accuracy for every variant: AUC, sensitivity, F1, calibration.

Derived from the images' log odds, so it is there where these were kept (up to 20 classes, or on demand).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from torch_bgdebias.metrics.answers import (
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    f1_score,
    sensitivity_at,
)
from torch_bgdebias.metrics.auc import auc_difference, auc_interval
from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.metrics.intervals import mean_interval
from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.results.images import ImageResults
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.naming import class_label

__all__ = ["SPECIFICITY", "AreaGap", "LabelPerformance", "VariantPerformance", "area_gap", "areas_of", "performance_of"]

#: at which the sensitivity is read off the curve
SPECIFICITY = 0.95


@dataclasses.dataclass(frozen=True)
class LabelPerformance:
    """One class against the rest, or one label of label sets.

    Attributes:
        label: its number.
        name: its name.
        positives: images that have it.
        auc: area under the ROC curve, DeLong's interval on the log odds.
        sensitivity: share of the images that have it of which the model says so.
        specificity: share of the others of which it does not.
        balanced_accuracy: mean of the two.
        sensitivity_at: sensitivity at the threshold that leaves a specificity of 0.95.
        f1: of the answers.
    """

    label: int
    name: str
    positives: int
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    balanced_accuracy: Estimate
    sensitivity_at: Estimate
    f1: Estimate


@dataclasses.dataclass(frozen=True)
class VariantPerformance:
    """The performance of the answers in one variant.

    Attributes:
        variant: its name.
        n: images that have it.
        auc: mean area over the classes (of two classes: that of class 1) or labels.
        balanced_accuracy: mean over the classes of the share that is right; of label sets the labels' mean.
        f1: mean over the classes or labels; its interval is the mean of theirs, which is wide enough however they are
            correlated.
        calibration_error: expected calibration error of the answer's probability, 15 bins; of label sets the labels'
            mean, of the probability of the label.
        calibration_by_chance: what a calibrated model would show on these images.
        labels: each class against the rest, or each label.
        confusion: images by class (rows) and answer (columns); empty for label sets.
    """

    variant: str
    n: int
    auc: Estimate
    balanced_accuracy: Estimate
    f1: Estimate
    calibration_error: float
    calibration_by_chance: float
    labels: list[LabelPerformance]
    confusion: list[list[int]]


@dataclasses.dataclass(frozen=True)
class AreaGap:
    """The area under the ROC curve on own backgrounds less that on random ones.

    Attributes:
        difference: with DeLong's interval, paired over images.
        p_value: of DeLong's test.
    """

    difference: Estimate
    p_value: float


def performance_of(measurement: Measurement) -> dict[str, VariantPerformance]:
    """Per variant, in the order of evaluation; empty where no log odds were kept or the images have no labels."""
    images = measurement.images
    if not images.labelled:
        return {}
    return {name: _variant_performance(measurement, name) for name in images.variants if name in images.log_odds}


def area_gap(measurement: Measurement) -> AreaGap | None:
    """The AUC's counterpart of the BG-Gap; ``None`` where it was not measured."""
    images = measurement.images
    if not images.labelled or not {"mixed_same", "mixed_rand"} <= set(images.log_odds):
        return None
    (same, truth), (rand, _) = (areas_of(images, name) for name in ("mixed_same", "mixed_rand"))
    difference = auc_difference(same, rand, truth, groups=images.unit, confidence=measurement.confidence)
    return AreaGap(Estimate.of(difference.interval), difference.p_value)


def areas_of(images: ImageResults, variant: str, label: int | None = None) -> tuple[Floats, NDArray[np.int64]]:
    """Scores and truth (N, K) whose mean area is a variant's; of two classes those of class 1 alone.

    Args:
        images: what a model said.
        variant: in which variant.
        label: one class or label alone.
    """
    odds, truth = images.log_odds[variant].astype(np.float64), _truth(images, images.log_odds[variant].shape[1])
    if label is None:
        selected = [1] if images.targets is None and odds.shape[1] == 2 else list(range(odds.shape[1]))
    else:
        selected = [label]
    return odds[:, selected], truth[:, selected]


def _truth(images: ImageResults, count: int) -> NDArray[np.int64]:
    if images.targets is not None:
        return images.targets.astype(np.int64)
    return np.asarray(images.label[:, None] == np.arange(count), np.int64)


def _variant_performance(measurement: Measurement, name: str) -> VariantPerformance:
    images, level = measurement.images, measurement.confidence
    rows = np.flatnonzero(images.valid(name))
    inside = images.at(rows)
    scores, truth = areas_of(inside, name)
    auc = auc_interval(scores, truth, groups=inside.unit, confidence=level, method="logit")
    count = inside.log_odds[name].shape[1]
    labels = [_label_performance(measurement, inside, name, label) for label in range(count)]
    occurring = [row for row in labels if row.positives]
    error, by_chance = _calibration(inside, name)
    has_label_sets = images.targets is not None
    if has_label_sets:
        balanced = _mean_of_ends([row.balanced_accuracy for row in labels])
    else:
        answers = inside.prediction[name]
        balanced = Estimate.of(balanced_accuracy(inside.label, answers, groups=inside.unit, confidence=level))
    return VariantPerformance(
        variant=name,
        n=len(rows),
        auc=Estimate.of(auc),
        balanced_accuracy=balanced,
        f1=_mean_of_ends([row.f1 for row in occurring]),
        calibration_error=error,
        calibration_by_chance=by_chance,
        labels=occurring,
        confusion=[] if has_label_sets else confusion_matrix(inside.label, inside.prediction[name], count).tolist(),
    )


def _label_performance(measurement: Measurement, images: ImageResults, name: str, label: int) -> LabelPerformance:
    level, unit = measurement.confidence, images.unit
    scores, truth = (column[:, 0] for column in areas_of(images, name, label))
    has_label = truth > 0
    answered = images.label_answers(name)[:, label] if images.targets is not None else images.prediction[name] == label

    def share(rows: NDArray[np.bool_], right: NDArray[np.bool_]) -> Interval:
        return mean_interval(right[rows], groups=None if unit is None else unit[rows], confidence=level)

    return LabelPerformance(
        label=label,
        name=class_label(measurement, label),
        positives=int(has_label.sum()),
        auc=Estimate.of(auc_interval(scores, truth, groups=unit, confidence=level, method="logit")),
        sensitivity=Estimate.of(share(has_label, answered)),
        specificity=Estimate.of(share(~has_label, ~answered)),
        balanced_accuracy=Estimate.of(balanced_accuracy(truth, answered, groups=unit, confidence=level)),
        sensitivity_at=Estimate.of(sensitivity_at(scores, truth, specificity=SPECIFICITY, confidence=level)),
        f1=Estimate.of(f1_score(has_label, answered, groups=unit, confidence=level)),
    )


def _calibration(images: ImageResults, name: str) -> tuple[float, float]:
    if images.targets is None:
        error = calibration_error(np.clip(images.confidence[name], 0, 1), images.correct(name))
        return error.error, error.by_chance
    shares = expit(images.log_odds[name].astype(np.float64))
    errors = [calibration_error(p, has_label) for p, has_label in zip(shares.T, images.targets.T, strict=True)]
    return float(np.mean([c.error for c in errors])), float(np.mean([c.by_chance for c in errors]))


def _mean_of_ends(estimates: Sequence[Estimate]) -> Estimate:
    """Mean of estimates that may be correlated in any way: its error is at most the mean of theirs."""
    finite = [e for e in estimates if math.isfinite(e.value)]
    if not finite:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value, low, high = (float(np.mean([getattr(e, end) for e in finite])) for end in ("value", "low", "high"))
    return Estimate(value, low, high, max(e.n for e in finite))
