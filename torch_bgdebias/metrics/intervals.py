"""Intervals that hold at the ends too: of shares near 0 and 1, of gaps of 0, of skewed scores. Nothing is drawn.

A bootstrap of 359 images that are all right gives 100.0 [100.0, 100.0]; the mid-P interval gives 99.2 to 100. Images
are the unit; where they come in groups (pictures of one patient, frames of one film) ``groups=`` makes it the group:
the number of images is divided by the design effect, and quantiles are Student's with one degree of freedom less than
groups. Where all images agree the design effect is unknown, and a group counts as one image.

Source: Berry and Armitage, The Statistician 44, 1995 (Clopper-Pearson with mid-P); Wilson, JASA 22, 1927 (in groups);
Brown, Cai and DasGupta, Statistical Science 16, 2001 (Jeffreys' interval); Zou and Donner, Statistics in Medicine 27,
2008 (a difference from the intervals of its parts, after Newcombe, Statistics in Medicine 17, 1998); Hall, JRSS B 54,
1992 (transformation of the t statistic against skewness); Korn and Graubard, Survey Methodology 24, 1998 (effective
numbers of images).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from torch_bgdebias.checks import check_confidence
from torch_bgdebias.metrics.columns import Floats, group_numbers, number_column, paired_number_columns
from torch_bgdebias.metrics.statistics import Interval

__all__ = ["changed_sides", "mean_difference_interval", "mean_interval", "mid_p", "wilson"]

_STEPS = 48  # halvings of [0, 1]: 4e-15


def mean_interval(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean over images with an interval: Clopper-Pearson's with mid-P for right and wrong (in groups Wilson's with the
    effective number of images), Student's corrected for skewness for scores. Shares of which at least half are 0 (or 1)
    count as right and wrong of their typical size.

    Args:
        values: (N,) one number an image; NaN means that the image has none and is left out.
        groups: (N,) integers or strings of images that are not independent. The mean is still over images.
        confidence: in (0, 1).
        bounds: values that a mean cannot pass; [0, 1] for right and wrong.

    Returns:
        Interval: of no images: all NaN. Of one image (or group): the value, with NaN ends. Of scores that are all
        equal: ends equal the value.

    Raises:
        ValueError: not (N,), infinite values, groups of another length, or a confidence out of range.

    Example:
        >>> interval = mean_interval([1] * 359)
        >>> interval.value, round(interval.low, 4), interval.high
        (1.0, 0.9917, 1.0)
    """
    x = number_column(values, "values")
    check_confidence(confidence)
    unit, x = _units(groups, x)[~np.isnan(x)], x[~np.isnan(x)]
    n, value = len(x), float(x.mean()) if len(x) else math.nan
    if len(np.unique(unit)) < 2:
        return Interval(value, math.nan, math.nan, n)
    if bounds == (0, 1) or bool(((x == 0) | (x == 1)).all()):
        size = _common_size(x), _common_size(1 - x)
        z, effective = _quantile(unit, groups, confidence), _effective_count(x - value, unit)
        ends = mid_p if groups is None else wilson
        if size[0] is not None:  # mostly 0
            low, high = (size[0] * end for end in ends(value * effective / size[0], effective, z))
            return Interval(value, low, min(high, 1.0), n)
        if size[1] is not None:
            low, high = (1 - size[1] * end for end in ends((1 - value) * effective / size[1], effective, z))
            return Interval(value, max(high, 0.0), low, n)
    low, high = _corrected_t(value, x - value, unit, confidence)
    return Interval(value, max(low, bounds[0]), min(high, bounds[1]), n)


def mean_difference_interval(
    first: ArrayLike, second: ArrayLike, *, groups: ArrayLike | None = None, confidence: float = 0.95
) -> Interval:
    """mean(first) - mean(second), paired by image, with an interval.

    For right and wrong on the same images (a BG-Gap, a change of accuracy): from Jeffreys' intervals of the two shares
    of images that changed sides. From those of both accuracies where some images have one of the two alone; two images
    more, one for and one against, for differences that are whole numbers (a change of a BG-Gap); Student's corrected
    for skewness for scores.

    Args:
        first: (N,) one number an image, NaN where it has none.
        second: (N,) of the same images.
        groups: (N,) integers or strings of images that are not independent.
        confidence: in (0, 1).

    Returns:
        Interval: n counts images with both values. NaN value when either column is empty; NaN ends when fewer than two
        images (or groups) have any value.

    Raises:
        ValueError: columns or groups of different length, infinite values, or a confidence out of range.

    Example:
        >>> interval = mean_difference_interval([1] * 40, [1] * 40)
        >>> round(interval.low, 3), interval.value, round(interval.high, 3)
        (-0.06, 0.0, 0.06)
    """
    x, y = paired_number_columns(first, second)
    check_confidence(confidence)
    has_x, has_y = ~np.isnan(x), ~np.isnan(y)
    in_both = has_x & has_y
    if not (has_x.any() and has_y.any()):
        return Interval(math.nan, math.nan, math.nan, int(in_both.sum()))
    value = float(x[has_x].mean() - y[has_y].mean())
    in_any = has_x | has_y
    unit = _units(groups, x)[in_any]
    if len(np.unique(unit)) < 2:
        return Interval(value, math.nan, math.nan, int(in_both.sum()))
    z = _quantile(unit, groups, confidence)
    binary = all(bool(((c == 0) | (c == 1)).all()) for c in (x[has_x], y[has_y]))
    if not bool((in_both == in_any).all()):  # each mean is over images of its own
        if binary:
            ends = mid_p if groups is None else wilson
            low, high = _paired_share_intervals(x, y, _units(groups, x), lambda count, of: ends(count, of, z))
            return Interval(value, low, high, int(in_both.sum()))
        influence = np.where(has_x, x - x[has_x].mean(), 0) * len(unit) / has_x.sum()
        influence -= np.where(has_y, y - y[has_y].mean(), 0) * len(unit) / has_y.sum()
        return Interval(value, *_corrected_t(value, influence[in_any], unit, confidence), int(in_both.sum()))
    changes = (x - y)[in_both]
    n = _effective_count(changes - value, unit)
    size = _common_size(np.abs(changes)) if np.abs(changes).max() <= 1 else None
    if size is not None:
        plus, minus = (float(np.maximum(sign * changes, 0).mean()) / size for sign in (1, -1))
        low, high = changed_sides(plus, minus, n, 2 * float(special.ndtr(-z)))
        return Interval(value, size * low, size * high, len(changes))
    if bool((changes == changes.round()).all()) and np.abs(changes).max() <= 2:
        centre, square = value * n / (n + 2), (float(np.square(changes).mean()) * n + 2) / (n + 2)
        half = z * math.sqrt(max(square - centre**2, 0.0) / (n + 2))
        return Interval(value, max(centre - half, -2.0), min(centre + half, 2.0), len(changes))
    return Interval(value, *_corrected_t(value, changes - value, unit, confidence), len(changes))


def _common_size(x: Floats) -> float | None:
    """The size of what is not 0, where half of the numbers (in [0, 1]) are 0 or all others are 1; ``None`` elsewhere.

    Of sizes that differ it is the one with which as many images would have the same mean and mean square.
    """
    nonzero = x != 0
    if not nonzero.any() or bool((x[nonzero] == 1).all()):
        return 1.0
    return float(np.square(x).sum() / x.sum()) if 2 * nonzero.sum() <= len(x) else None


@functools.lru_cache(maxsize=8192)  # classes of one size have few different counts
def mid_p(count: float, n: float, z: float) -> tuple[float, float]:
    """Shares at which half of P(count) and all beyond it add up to P(normal > z), on either side."""
    error = 2 * float(special.ndtr(-z))

    def beyond(p: float) -> float:
        """P(more than count) and half of P(count), of n with chance p; numbers need not be whole."""
        at_least = 1.0 if count <= 0 else float(special.betainc(count, n - count + 1, p))
        above = 0.0 if count >= n else float(special.betainc(count + 1, n - count, p))
        return (at_least + above) / 2

    low = 0.0 if count <= 0 else _bisect(lambda p: beyond(p) < error / 2, 0.0, 1.0)
    high = 1.0 if count >= n else _bisect(lambda p: beyond(p) < 1 - error / 2, 0.0, 1.0)
    return low, high


def wilson(count: float, n: float, z: float) -> tuple[float, float]:
    """Score interval: smoother than counts of whole images where n is an effective number of groups."""
    p = min(max(count / n, 0.0), 1.0)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at 0 and 1 an end is the value itself, whatever rounding says
    return 0.0 if p == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half)


def changed_sides(plus: float, minus: float, n: float, error: float) -> tuple[float, float]:
    """Interval of ``plus`` - ``minus``, two shares of the same n images that exclude each other."""
    ends = [_jeffreys(share * n, n, error) for share in (plus, minus)]
    # half an image more on either side: shares of 0 and 1 are correlated too
    p, q = ((share * n + 0.5) / (n + 1) for share in (plus, minus))
    correlation = -math.sqrt(p * q / ((1 - p) * (1 - q)))
    return _from_parts(plus, minus, ends[0], ends[1], correlation)


@functools.lru_cache(maxsize=8192)
def _jeffreys(count: float, n: float, error: float) -> tuple[float, float]:
    low = 0.0 if count <= 0 else float(special.betaincinv(count + 0.5, n - count + 0.5, error / 2))
    high = 1.0 if count >= n else float(special.betaincinv(count + 0.5, n - count + 0.5, 1 - error / 2))
    return low, high


def _from_parts(
    p: float, q: float, of_p: tuple[float, float], of_q: tuple[float, float], correlation: float
) -> tuple[float, float]:
    """Interval of p - q from those of both."""
    (pl, pu), (ql, qu) = of_p, of_q
    below = (p - pl) ** 2 - 2 * correlation * (p - pl) * (qu - q) + (qu - q) ** 2
    above = (pu - p) ** 2 - 2 * correlation * (pu - p) * (q - ql) + (q - ql) ** 2
    return p - q - math.sqrt(max(below, 0.0)), p - q + math.sqrt(max(above, 0.0))


def _bisect(still: Callable[[float], bool], low: float, high: float) -> float:
    """The value between the two at which ``still`` turns from true to false."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return (low + high) / 2


def _paired_share_intervals(
    x: Floats, y: Floats, unit: NDArray[np.int64], ends_of: Callable[[float, float], tuple[float, float]]
) -> tuple[float, float]:
    """Intervals of both shares, put together with their correlation over the images that have both."""
    p, q = float(np.nanmean(x)), float(np.nanmean(y))
    ends = []
    for column, share in ((x, p), (y, q)):
        is_known = ~np.isnan(column)
        n = _effective_count(column[is_known] - share, unit[is_known])
        ends.append(ends_of(share * n, n))
    in_both = ~np.isnan(x - y)
    phi = 0.0
    if in_both.sum() > 1 and x[in_both].std() > 0 and y[in_both].std() > 0:
        overlap = in_both.sum() / math.sqrt((~np.isnan(x)).sum() * (~np.isnan(y)).sum())
        phi = float(np.corrcoef(x[in_both], y[in_both])[0, 1] * overlap)
    return _from_parts(p, q, ends[0], ends[1], phi)


def _corrected_t(value: float, residual: Floats, unit: NDArray[np.int64], confidence: float) -> tuple[float, float]:
    """Student's interval from the residuals of a mean, its statistic transformed so that skewness goes."""
    totals = _totals(residual, unit) * (len(np.unique(unit)) / len(residual))  # residuals of the units' mean
    units = len(totals)
    spread = float(np.sqrt(np.square(totals).sum() / (units - 1)))
    if spread == 0:
        return value, value
    skewness = float(np.mean(totals**3)) / float(np.mean(totals**2)) ** 1.5
    t, root = float(special.stdtrit(units - 1, 0.5 + confidence / 2)), math.sqrt(units)
    a, b = skewness / 3, skewness / 6

    def inverse(y: float) -> float:
        if abs(a) < 1e-9:
            return y
        return float(root / a * (np.cbrt(1 + 3 * a / root * (y - b / root)) - 1))

    return value - spread / root * inverse(t), value - spread / root * inverse(-t)


def _effective_count(residual: Floats, unit: NDArray[np.int64]) -> float:
    """Independent images that say as much as these: their number over the design effect of the groups."""
    n, units = len(residual), len(np.unique(unit))
    if units == n:
        return float(n)
    sizes = np.bincount(np.unique(unit, return_inverse=True)[1])
    fewest = n * n / float(np.square(sizes).sum())  # were all images of a group alike
    variance_alone = float(np.square(residual).mean())
    if variance_alone == 0:
        return fewest
    together = float(np.square(_totals(residual, unit)).sum()) * units / (units - 1) / n
    return float(min(max(n * variance_alone / together if together > 0 else n, 1.0), n))


def _totals(residual: Floats, unit: NDArray[np.int64]) -> Floats:
    number = np.unique(unit, return_inverse=True)[1]
    return np.bincount(number, weights=residual).astype(np.float64)


def _quantile(unit: NDArray[np.int64], groups: ArrayLike | None, confidence: float) -> float:
    if groups is None:
        return float(special.ndtri(0.5 + confidence / 2))
    return float(special.stdtrit(len(np.unique(unit)) - 1, 0.5 + confidence / 2))


def _units(groups: ArrayLike | None, values: Floats) -> NDArray[np.int64]:
    """The group of each image as a number; every image its own without groups."""
    return np.arange(len(values)) if groups is None else group_numbers(groups, values)
