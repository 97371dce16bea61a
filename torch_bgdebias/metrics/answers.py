"""Measures beyond accuracy: sensitivity, specificity, F1, balanced accuracy, calibration."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from torch_bgdebias.checks import check_count, check_share
from torch_bgdebias.metrics.columns import Floats, array_of
from torch_bgdebias.metrics.intervals import mean_interval
from torch_bgdebias.metrics.statistics import Interval

__all__ = ["Calibration", "balanced_accuracy", "calibration_error", "confusion_matrix", "f1_score", "sensitivity_at"]


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Expected calibration error.

    Attributes:
        error: mean distance of confidence and accuracy over bins of equal width, weighted by their images.
        by_chance: what a perfectly calibrated model with these confidences would show on so many images, on average.
        n: images.
    """

    error: float
    by_chance: float
    n: int


def confusion_matrix(labels: ArrayLike, answers: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """(K, K) counts: rows are the classes, columns the answers; images with a negative label or answer are left out.

    Raises:
        ValueError: columns of different length, or a class of K or more.

    Example:
        >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
        [[1, 0], [1, 1]]
    """
    check_count(num_classes, name="num_classes")
    truth, predicted = array_of(labels, np.int64), array_of(answers, np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"answers: expected shape {truth.shape} as labels (N,), got {predicted.shape}")
    is_known = (truth >= 0) & (predicted >= 0)
    if is_known.any() and max(truth[is_known].max(), predicted[is_known].max()) >= num_classes:
        largest = max(truth[is_known].max(), predicted[is_known].max())
        raise ValueError(f"labels, answers: expected classes below {num_classes}, got {largest}")
    counts = np.bincount(truth[is_known] * num_classes + predicted[is_known], minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def balanced_accuracy(
    labels: ArrayLike, answers: ArrayLike, *, groups: ArrayLike | None = None, confidence: float = 0.95
) -> Interval:
    """Mean over the occurring classes of the share of their images that are classified correctly.

    Args:
        labels: (N,) classes, negative where not known.
        answers: (N,) classes, negative where there is none.
        groups: (N,) of images that are not independent.
        confidence: in (0, 1).

    Returns:
        Interval: put together from the classes' intervals, as distances of independent shares; of no image: NaN.

    Raises:
        ValueError: columns of different length.
    """
    truth, predicted, unit = _columns(labels, answers, groups)
    classes = np.unique(truth)
    if not len(classes):
        return Interval(math.nan, math.nan, math.nan, 0)
    shares = [
        mean_interval(predicted[rows] == c, groups=None if unit is None else unit[rows], confidence=confidence)
        for c in classes
        for rows in [truth == c]
    ]
    value = float(np.mean([share.value for share in shares]))
    below, above = ([getattr(share, end) - share.value for share in shares] for end in ("low", "high"))
    low, high = (math.hypot(*distances) / len(shares) for distances in (below, above))
    return Interval(value, value - low, value + high, len(truth))


def f1_score(
    there: ArrayLike, said: ArrayLike, *, groups: ArrayLike | None = None, confidence: float = 0.95
) -> Interval:
    """F1 of one label: 2 TP / (2 TP + FP + FN); 1 - F1 weighs misses and false alarms alike.

    F1 rises with the share of hits among all images in which the label is there or was said; the interval is that
    share's.

    Args:
        there: (N,) whether the label is there.
        said: (N,) whether the model says so.
        groups: (N,) of images that are not independent.
        confidence: in (0, 1).

    Returns:
        Interval: n counts images; NaN where the label is nowhere and was never said.

    Raises:
        ValueError: columns of different length.
    """
    truth, predicted, unit = _columns(there, said, groups)
    concerned = (truth > 0) | (predicted > 0)
    hits = ((truth > 0) & (predicted > 0))[concerned]
    share = mean_interval(hits, groups=None if unit is None else unit[concerned], confidence=confidence)
    value, low, high = (2 * end / (1 + end) for end in (share.value, share.low, share.high))
    return Interval(value, low, high, len(truth))


def sensitivity_at(
    scores: ArrayLike, there: ArrayLike, *, specificity: float = 0.95, confidence: float = 0.95
) -> Interval:
    """The largest sensitivity at a threshold that keeps the specificity at or above a given one.

    The threshold is itself estimated: the interval takes the ends of the threshold's own interval (order statistics of
    the negatives, half of the error) and at these the ends of the share of positives (the other half), so it holds at
    least as often as said.

    Args:
        scores: (N,), NaN where there is none.
        there: (N,) of 0 and 1.
        specificity: in [0, 1].
        confidence: in (0, 1).

    Returns:
        Interval: n counts images; NaN without positives or negatives; low end 0 where the negatives are too few to fix
        the threshold.

    Raises:
        ValueError: columns of different length, or a share out of range.

    Example:
        >>> sensitivity_at([0.1, 0.2, 0.3, 0.25, 0.4, 0.5], [0, 0, 0, 1, 1, 1], specificity=0.9).value
        0.6666666666666666
    """
    check_share(specificity, name="specificity")
    table, truth = array_of(scores, np.float64), array_of(there)
    if table.shape != truth.shape or table.ndim != 1:
        raise ValueError(f"there: expected shape {table.shape} as scores (N,), got {truth.shape}")
    is_known = ~np.isnan(table)
    positives, negatives = table[is_known & (truth > 0)], np.sort(table[is_known & (truth <= 0)])
    n = len(negatives)
    if not n or not len(positives):
        return Interval(math.nan, math.nan, math.nan, int(is_known.sum()))
    limit = _order_statistic(negatives, math.ceil(round(specificity * n, 9)))
    half = (1 - confidence) / 2
    lowest = _order_statistic(negatives, int(stats.binom.ppf(half / 2, n, specificity)))
    highest = _order_statistic(negatives, int(stats.binom.isf(half / 2, n, specificity)) + 1)
    ends = [mean_interval(positives > t, confidence=1 - half) for t in (highest, lowest)]
    low = 0.0 if math.isnan(ends[0].low) else ends[0].low
    high = 1.0 if math.isnan(ends[1].high) else ends[1].high
    return Interval(float((positives > limit).mean()), low, high, int(is_known.sum()))


def calibration_error(confidence: ArrayLike, right: ArrayLike, *, bins: int = 15) -> Calibration:
    """Expected calibration error over bins of equal width.

    Args:
        confidence: (N,) probability of the answer (of label sets: of the label), NaN where there is none.
        right: (N,) whether the answer is right (whether the label is there).
        bins: how many.

    Raises:
        ValueError: columns of different length, probabilities outside [0, 1], or fewer than one bin.

    Source: Naeini, Cooper and Hauskrecht, AAAI 2015; Guo et al., ICML 2017.

    Example:
        >>> round(calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]).error, 6)
        0.1
    """
    check_count(bins, name="bins")
    p, truth = array_of(confidence, np.float64), array_of(right, np.float64)
    if p.shape != truth.shape or p.ndim != 1:
        raise ValueError(f"right: expected shape {p.shape} as confidence (N,), got {truth.shape}")
    is_known = ~np.isnan(p)
    p, truth = p[is_known], truth[is_known]
    if not len(p):
        return Calibration(math.nan, math.nan, 0)
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"confidence: expected probabilities in [0, 1], got [{p.min():g}, {p.max():g}]")
    number = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)  # (0, 1/bins], ... as published
    off, noise = (np.bincount(number, weights=w, minlength=bins) for w in (truth - p, p * (1 - p)))
    # the mean distance of a sum of so many coin tosses from what is expected of it
    return Calibration(float(np.abs(off).sum() / len(p)), float(np.sqrt(2 / math.pi * noise).sum() / len(p)), len(p))


def _order_statistic(ordered: Floats, rank: int) -> float:
    """The value of a rank from 1; beyond either end infinity."""
    return -math.inf if rank < 1 else math.inf if rank > len(ordered) else float(ordered[rank - 1])


def _columns(
    labels: ArrayLike, answers: ArrayLike, groups: ArrayLike | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.generic] | None]:
    truth, predicted = array_of(labels).astype(np.int64), array_of(answers).astype(np.int64)
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ValueError(f"answers: expected shape {truth.shape} as labels (N,), got {predicted.shape}")
    is_known = (truth >= 0) & (predicted >= 0)
    unit = None if groups is None else array_of(groups)[is_known]
    return truth[is_known], predicted[is_known], unit
