"""Area under the ROC curve with DeLong's variance: of one label, of many, and of two score columns on the same images.

The variance comes from one number an image, its part in the area's deviation: the sum of their squares is DeLong's
variance. So areas of several labels, of two models and of two backgrounds are added and subtracted image by image, and
images that belong together (pictures of one patient) are added up first.

Source: DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988; Sun and Xu, IEEE Signal Processing Letters 21, 2014 (by
ranks); Obuchowski, Biometrics 53, 1997 (clusters).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from torch_bgdebias.checks import check_confidence, check_option
from torch_bgdebias.metrics.columns import Floats, array_of, group_numbers
from torch_bgdebias.metrics.statistics import Interval

#: areas whose variance is 0
_EXTREMES = (0.0, 1.0)

__all__ = ["AreaDifference", "auc_difference", "auc_interval"]

#: how ends are found: ``"delong"`` value and quantile times standard error, as published and as in R's pROC;
#: ``"logit"`` the same of the log odds, which stays within 0 and 1 and holds better near them
AreaMethod = Literal["delong", "logit"]


@dataclasses.dataclass(frozen=True)
class AreaDifference:
    """Two areas on the same images.

    Attributes:
        interval: first area less second, with DeLong's interval.
        z: the difference over its standard error; NaN where that is 0.
        p_value: two-sided, of DeLong's test; 1 where the two never differ.
    """

    interval: Interval
    z: float
    p_value: float


def auc_interval(
    scores: ArrayLike,
    targets: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    method: AreaMethod = "delong",
) -> Interval:
    """Area under the ROC curve, or the mean of the areas of several labels, with DeLong's interval.

    Args:
        scores: (N,) of one label, higher where it is likelier; (N, K) of several. NaN: the image is left out.
        targets: (N,) or (N, K) of 0 and 1; (N,) classes 0 ... K - 1 with scores (N, K): each against the rest.
        groups: (N,) integers or strings of images that are not independent.
        confidence: in (0, 1).
        method: ``"delong"`` or ``"logit"``. Of an area of exactly 0 or 1, whose variance is 0, the end is what the
            fewer of positive and negative images (or groups), paired off, leave possible.

    Returns:
        Interval: over the labels that have positive and negative images; NaN where none has. NaN ends where a label has
        fewer than two of either.

    Raises:
        ValueError: shapes that do not agree, targets that are not 0 and 1, or a confidence out of range.

    Example:
        >>> interval = auc_interval([0.1, 0.4, 0.35, 0.8, 0.7, 0.2], [0, 0, 1, 1, 1, 0])
        >>> round(interval.value, 4), interval.n
        (0.8889, 6)
    """
    check_option(method, ("delong", "logit"), name="method")
    check_confidence(confidence)
    table, truth, unit = _tables(scores, targets, groups)
    is_known = ~np.isnan(table).any(1)
    value, influence, fewest = _mean_area(table[is_known], truth[is_known], unit[is_known])
    n = int(is_known.sum())
    if math.isnan(value) or fewest < 2:
        return Interval(value, math.nan, math.nan, n)
    if value in _EXTREMES:
        return Interval(value, *_ends_of_extreme(value, fewest, table.shape[1], confidence), n)
    return Interval(value, *_interval_ends(value, _standard_error(influence, unit[is_known]), confidence, method), n)


def auc_difference(
    first: ArrayLike,
    second: ArrayLike,
    targets: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> AreaDifference:
    """The difference of two areas on the same images (two models, or two backgrounds), with DeLong's interval and test.

    An area of exactly 0 or 1 has no variance: then the ends are put together from those of the two areas (Zou and
    Donner, Statistics in Medicine 27, 2008), as if these had nothing to do with each other, so rather too wide.

    Args:
        first: scores as in `auc_interval`.
        second: of the same images.
        targets: as there.
        groups: as there.
        confidence: in (0, 1).

    Raises:
        ValueError: as there.

    Example:
        >>> found = auc_difference([0.1, 0.4, 0.35, 0.8], [0.1, 0.2, 0.35, 0.8], [0, 0, 1, 1])
        >>> found.interval.value
        -0.25
    """
    check_confidence(confidence)
    first_scores, truth, unit = _tables(first, targets, groups)
    second_scores = _tables(second, targets, groups)[0]
    if first_scores.shape != second_scores.shape:
        raise ValueError(f"second: expected shape {first_scores.shape} as first, got {second_scores.shape}")
    is_known = ~(np.isnan(first_scores).any(1) | np.isnan(second_scores).any(1))
    first_scores, second_scores, truth, unit = (
        first_scores[is_known],
        second_scores[is_known],
        truth[is_known],
        unit[is_known],
    )
    (a, of_a, fewest), (b, of_b, _) = (_mean_area(table, truth, unit) for table in (first_scores, second_scores))
    value = a - b
    if math.isnan(value) or fewest < 2:
        return AreaDifference(Interval(value, math.nan, math.nan, len(first_scores)), math.nan, math.nan)
    error = _standard_error(of_a - of_b, unit)
    half = float(stats.norm.ppf(0.5 + confidence / 2)) * error
    z = value / error if error > 0 else math.nan
    p = float(2 * stats.norm.sf(abs(z))) if error > 0 else (1.0 if value == 0 else 2 * 0.5**fewest)
    low, high = value - half, value + half
    if a in _EXTREMES or b in _EXTREMES:
        ends = [
            _ends_of_extreme(area, fewest, first_scores.shape[1], confidence)
            if area in _EXTREMES
            else _interval_ends(area, _standard_error(part, unit), confidence, "logit")
            for area, part in ((a, of_a), (b, of_b))
        ]
        (low_a, high_a), (low_b, high_b) = ends
        low = min(low, value - math.hypot(a - low_a, high_b - b))
        high = max(high, value + math.hypot(high_a - a, b - low_b))
    return AreaDifference(Interval(value, max(low, -1.0), min(high, 1.0), len(first_scores)), z, p)


def _mean_area(table: Floats, truth: NDArray[np.bool_], unit: NDArray[np.int64]) -> tuple[float, Floats, int]:
    """Mean area of the labels that have one, each image's part in its deviation, the fewest units on either side."""
    areas: list[float] = []
    influence, fewest = np.zeros(len(table)), len(table)
    for scores, positive in zip(table.T, truth.T, strict=True):
        if not positive.any() or positive.all():
            continue
        area, of_images = _area(scores, positive)
        areas.append(area)
        influence += of_images
        fewest = min(fewest, *(len(np.unique(unit[rows])) for rows in (positive, ~positive)))
    if not areas:
        return math.nan, influence, 0
    return float(np.mean(areas)), influence / len(areas), fewest


def _area(scores: Floats, positive: NDArray[np.bool_]) -> tuple[float, Floats]:
    """The area and each image's part in its deviation; the squares of the parts add up to DeLong's variance."""
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = stats.rankdata(scores)
    beaten = (ranks[positive] - stats.rankdata(scores[positive])) / n  # share of negatives below each positive
    beating = 1 - (ranks[~positive] - stats.rankdata(scores[~positive])) / m
    area = float(beaten.mean())
    influence = np.zeros(len(scores))
    influence[positive] = (beaten - area) / math.sqrt(m * max(m - 1, 1))
    influence[~positive] = (beating - area) / math.sqrt(n * max(n - 1, 1))
    return area, influence


def _standard_error(influence: Floats, unit: NDArray[np.int64]) -> float:
    """Standard error from parts of images, added up over what belongs together."""
    units = len(np.unique(unit))
    if units == len(influence):
        return float(np.sqrt(np.square(influence).sum()))
    together = np.bincount(np.unique(unit, return_inverse=True)[1], weights=influence)
    return float(np.sqrt(np.square(together).sum() * units / max(units - 1, 1)))


def _ends_of_extreme(value: float, fewest: int, labels: int, confidence: float) -> tuple[float, float]:
    """The interval of an area of exactly 0 or 1, of so many positive and negative images that are paired off."""
    bound = float(((1 - confidence) / 2 / labels) ** (1 / fewest))
    return (bound, 1.0) if value == 1 else (0.0, 1 - bound)


def _interval_ends(value: float, error: float, confidence: float, method: AreaMethod) -> tuple[float, float]:
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    if method == "delong" or value in (0.0, 1.0):
        return max(0.0, value - z * error), min(1.0, value + z * error)
    centre, half = math.log(value / (1 - value)), z * error / (value * (1 - value))
    low, high = (1 / (1 + math.exp(-min(max(end, -700.0), 700.0))) for end in (centre - half, centre + half))
    return low, high


def _tables(
    scores: ArrayLike, targets: ArrayLike, groups: ArrayLike | None
) -> tuple[Floats, NDArray[np.bool_], NDArray[np.int64]]:
    """Scores (N, K), which labels are there (N, K), and units (N,)."""
    table = array_of(scores, np.float64)
    if table.ndim not in (1, 2) or bool(np.isinf(table).any()):
        raise ValueError(f"scores: expected finite numbers (N,) or (N, K), NaN where there is none, got {table.shape}")
    raw_targets = array_of(targets)
    if table.ndim == 2 and raw_targets.ndim == 1 and raw_targets.dtype.kind in "iu" and len(raw_targets) == len(table):
        if len(raw_targets) and (raw_targets.min() < 0 or raw_targets.max() >= table.shape[1]):
            raise ValueError(
                f"targets: expected classes in [0, {table.shape[1] - 1}], got [{raw_targets.min()}, "
                f"{raw_targets.max()}]"
            )
        truth = raw_targets[:, None] == np.arange(table.shape[1])
    else:
        if raw_targets.shape != table.shape or bool(((raw_targets != 0) & (raw_targets != 1)).any()):
            raise ValueError(
                f"targets: expected 0 and 1 in shape {table.shape} as scores, got {raw_targets.dtype} "
                f"{raw_targets.shape}"
            )
        truth = raw_targets.astype(bool)
    if table.ndim == 1:
        table, truth = table[:, None], truth[:, None]
    return table, truth, np.arange(len(table)) if groups is None else group_numbers(groups, table[:, 0])
