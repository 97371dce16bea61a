"""Intervals that hold at the ends too: of shares near 0 and 1, of gaps of 0, of skewed scores. Nothing is drawn.

A bootstrap of 359 images that are all right gives 100.0 [100.0, 100.0]; the score interval gives 98.9 to 100. Images
are the unit; where they come in groups (pictures of one patient, frames of one film) ``groups=`` makes it the group:
the number of images is divided by the design effect, and quantiles are Student's with one degree of freedom less than
groups. Where all images agree the design effect is unknown, and a group counts as one image.

Source: Wilson, JASA 22, 1927; Tango, Statistics in Medicine 17, 1998; Newcombe, Statistics in Medicine 17, 1998,
method 10; Hall, JRSS B 54, 1992 (transformation of the t statistic against skewness); Korn and Graubard, Survey
Methodology 24, 1998 (effective numbers of images).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from torch_bgdebias.metrics.statistics import Floats, Interval

__all__ = ["mean_difference_interval", "mean_interval"]

_STEPS = 60  # halvings of [-1, 1]: beyond the precision of a float


def mean_interval(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Mean over images with an interval: Wilson's for right and wrong, Student's corrected for skewness for scores.

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
        (1.0, 0.9894, 1.0)
    """
    x = _column(values, "values")
    _check_confidence(confidence)
    unit, x = _units(groups, x)[~np.isnan(x)], x[~np.isnan(x)]
    n, value = len(x), float(x.mean()) if len(x) else math.nan
    if len(np.unique(unit)) < 2:
        return Interval(value, math.nan, math.nan, n)
    if bool(((x == 0) | (x == 1)).all()):
        low, high = _wilson(value, _effective(x - value, unit), _quantile(unit, groups, confidence))
        return Interval(value, low, high, n)
    low, high = _corrected_t(value, x - value, unit, confidence)
    return Interval(value, max(low, bounds[0]), min(high, bounds[1]), n)


def mean_difference_interval(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
) -> Interval:
    """mean(first) - mean(second), paired by image, with an interval.

    Tango's score interval for right and wrong on the same images (a BG-Gap, a change of accuracy); Newcombe's where
    some images have one of the two alone; two images more, one for and one against, for differences that are whole
    numbers (a change of a BG-Gap); Student's corrected for skewness for scores.

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
        (-0.088, 0.0, 0.088)
    """
    x, y = _column(first, "first"), _column(second, "second")
    if len(x) != len(y):
        raise ValueError(f"second: expected the same {len(x)} images as first, got {len(y)}")
    _check_confidence(confidence)
    has_x, has_y = ~np.isnan(x), ~np.isnan(y)
    both = has_x & has_y
    if not (has_x.any() and has_y.any()):
        return Interval(math.nan, math.nan, math.nan, int(both.sum()))
    value = float(x[has_x].mean() - y[has_y].mean())
    some = has_x | has_y
    unit = _units(groups, x)[some]
    if len(np.unique(unit)) < 2:
        return Interval(value, math.nan, math.nan, int(both.sum()))
    z = _quantile(unit, groups, confidence)
    binary = all(bool(((c == 0) | (c == 1)).all()) for c in (x[has_x], y[has_y]))
    if not bool((both == some).all()):  # each mean is over images of its own
        if binary:
            low, high = _newcombe(x, y, _units(groups, x), z)
            return Interval(value, low, high, int(both.sum()))
        influence = np.where(has_x, x - x[has_x].mean(), 0) * len(unit) / has_x.sum()
        influence -= np.where(has_y, y - y[has_y].mean(), 0) * len(unit) / has_y.sum()
        return Interval(value, *_corrected_t(value, influence[some], unit, confidence), int(both.sum()))
    d = (x - y)[both]
    n = _effective(d - value, unit)
    if bool(np.isin(d, (-1, 0, 1)).all()):
        low, high = _tango(float((d == 1).mean()) * n, float((d == -1).mean()) * n, n, z)
        return Interval(value, low, high, len(d))
    if bool((d == d.round()).all()) and np.abs(d).max() <= 2:
        centre, square = value * n / (n + 2), (float(np.square(d).mean()) * n + 2) / (n + 2)
        half = z * math.sqrt(max(square - centre**2, 0.0) / (n + 2))
        return Interval(value, max(centre - half, -2.0), min(centre + half, 2.0), len(d))
    return Interval(value, *_corrected_t(value, d - value, unit, confidence), len(d))


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # at 0 and 1 an end is the value itself, whatever rounding says
    return 0.0 if p == 0 else max(0.0, centre - half), 1.0 if p == 1 else min(1.0, centre + half)


def _tango(plus: float, minus: float, n: float, z: float) -> tuple[float, float]:
    """Differences at which the score test of paired shares has p = 1 - confidence; ``plus`` of n have +1."""

    def distance(delta: float) -> tuple[float, float]:
        b = -plus - minus + (2 * n - plus + minus) * delta
        c = -minus * delta * (1 - delta)
        q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        return plus - minus - n * delta, math.sqrt(max(n * (2 * q + delta * (1 - delta)), 0.0))

    def lower(delta: float) -> bool:
        numerator, spread = distance(delta)
        return numerator > z * spread

    def upper(delta: float) -> bool:
        numerator, spread = distance(delta)
        return numerator > -z * spread

    value = (plus - minus) / n
    return _turn(lower, -1.0, value), _turn(upper, value, 1.0)


def _turn(still: Callable[[float], bool], low: float, high: float) -> float:
    """Where ``still`` turns from true to false between the two."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if still(middle) else (low, middle)
    return (low + high) / 2


def _newcombe(x: Floats, y: Floats, unit: NDArray[np.int64], z: float) -> tuple[float, float]:
    """Wilson's intervals of both shares, put together with their correlation over the images that have both."""
    p, q = float(np.nanmean(x)), float(np.nanmean(y))
    ends = []
    for column, share in ((x, p), (y, q)):
        known = ~np.isnan(column)
        ends.append(_wilson(share, _effective(column[known] - share, unit[known]), z))
    both = ~np.isnan(x - y)
    phi = 0.0
    if both.sum() > 1 and x[both].std() > 0 and y[both].std() > 0:
        overlap = both.sum() / math.sqrt((~np.isnan(x)).sum() * (~np.isnan(y)).sum())
        phi = float(np.corrcoef(x[both], y[both])[0, 1] * overlap)
    (pl, pu), (ql, qu) = ends
    below = (p - pl) ** 2 - 2 * phi * (p - pl) * (qu - q) + (qu - q) ** 2
    above = (pu - p) ** 2 - 2 * phi * (pu - p) * (q - ql) + (q - ql) ** 2
    return p - q - math.sqrt(max(below, 0.0)), p - q + math.sqrt(max(above, 0.0))


def _corrected_t(value: float, residual: Floats, unit: NDArray[np.int64], confidence: float) -> tuple[float, float]:
    """Student's interval from the residuals of a mean, its statistic transformed so that skewness goes."""
    totals = _totals(residual, unit) * (len(np.unique(unit)) / len(residual))  # residuals of the units' mean
    units = len(totals)
    spread = float(np.sqrt(np.square(totals).sum() / (units - 1)))
    if spread == 0:
        return value, value
    skewness = float(np.mean(totals**3)) / float(np.mean(totals**2)) ** 1.5
    t, root = float(stats.t.ppf(0.5 + confidence / 2, units - 1)), math.sqrt(units)
    a, b = skewness / 3, skewness / 6

    def inverse(y: float) -> float:
        if abs(a) < 1e-9:
            return y
        return float(root / a * (np.cbrt(1 + 3 * a / root * (y - b / root)) - 1))

    return value - spread / root * inverse(t), value - spread / root * inverse(-t)


def _effective(residual: Floats, unit: NDArray[np.int64]) -> float:
    """Independent images that say as much as these: their number over the design effect of the groups."""
    n, units = len(residual), len(np.unique(unit))
    if units == n:
        return float(n)
    sizes = np.bincount(np.unique(unit, return_inverse=True)[1])
    fewest = n * n / float(np.square(sizes).sum())  # were all images of a group alike
    alone = float(np.square(residual).mean())
    if alone == 0:
        return fewest
    together = float(np.square(_totals(residual, unit)).sum()) * units / (units - 1) / n
    return float(min(max(n * alone / together if together > 0 else n, 1.0), n))


def _totals(residual: Floats, unit: NDArray[np.int64]) -> Floats:
    number = np.unique(unit, return_inverse=True)[1]
    return np.bincount(number, weights=residual).astype(np.float64)


def _quantile(unit: NDArray[np.int64], groups: ArrayLike | None, confidence: float) -> float:
    if groups is None:
        return float(stats.norm.ppf(0.5 + confidence / 2))
    return float(stats.t.ppf(0.5 + confidence / 2, len(np.unique(unit)) - 1))


def _units(groups: ArrayLike | None, values: Floats) -> NDArray[np.int64]:
    """The group of each image as a number; every image its own without groups."""
    if groups is None:
        return np.arange(len(values))
    given = np.asarray(groups)
    if given.shape != values.shape or given.dtype.kind not in "iuUS":
        raise ValueError(
            f"groups: expected {len(values)} integers or strings, one an image, got {given.dtype} {given.shape}"
        )
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _column(values: ArrayLike, name: str) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name}: expected one number an image (N,), got shape {x.shape}")
    if bool(np.isinf(x).any()):
        raise ValueError(f"{name}: expected finite numbers or NaN, got infinity")
    return x


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence!r}")
