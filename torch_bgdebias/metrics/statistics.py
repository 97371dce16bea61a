"""Intervals and tests for figures that are means over images: bootstrap, paired permutation, correction for many tests.

Everything works on one value per image (1 and 0 for right and wrong), in NumPy, and draws from generators seeded by the
caller. Images are the unit that is drawn, so whatever belongs to one image (its two variants) stays together.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from torch_bgdebias.checks import check_option

__all__ = [
    "Interval",
    "PermutationTest",
    "bootstrap_mean",
    "bootstrap_mean_difference",
    "correct_p_values",
    "paired_permutation_test",
]

Floats: TypeAlias = NDArray[np.float64]
_CHUNK = 4_000_000  # random numbers held at once
_EXACT = 14  # up to 2**14 sign patterns are counted out instead of drawn


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean (or difference of means) with the ends of its interval and the number of images behind it."""

    value: float
    low: float
    high: float
    n: int


@dataclasses.dataclass(frozen=True)
class PermutationTest:
    """Result of a paired test.

    Attributes:
        difference: mean of the first minus mean of the second.
        p_value: two-sided; 1 when the two never differ, NaN without images.
        n: pairs of images with both values defined.
        exact: whether all sign patterns were counted instead of drawn.
    """

    difference: float
    p_value: float
    n: int
    exact: bool


def bootstrap_mean(
    values: ArrayLike,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """Mean over images with its percentile bootstrap interval.

    For values that are only 0 and 1 (accuracy, consistency of decisions) the number of ones in a resample is binomial,
    so the interval's ends are taken from that distribution and nothing is drawn.

    Args:
        values: (N,) one number an image; NaN means that the image has none and is left out.
        confidence: in (0, 1).
        n_resamples: resamples drawn, at least 1.
        seed: seed or generator; the global state is never touched.

    Returns:
        Interval: of no images: all NaN. Of one image: the value, with NaN ends. All values equal: ends equal the value.

    Raises:
        ValueError: not (N,), infinite values, or a setting out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3.

    Example:
        >>> bootstrap_mean([1, 1, 1, 0, 1, 1, 0, 1, 1, 1])
        Interval(value=0.8, low=0.5, high=1.0, n=10)
    """
    x = _column(values, "values")
    _check_settings(confidence, n_resamples)
    x = x[~np.isnan(x)]
    value, n = (float(x.mean()) if len(x) else math.nan), len(x)
    if n < 2:
        return Interval(value, math.nan, math.nan, n)
    if bool((x == x[0]).all()):
        return Interval(float(x[0]), float(x[0]), float(x[0]), n)
    tail = (1 - confidence) / 2
    if bool(((x == 0) | (x == 1)).all()):
        low, high = (float(end) / n for end in stats.binom.ppf([tail, 1 - tail], n, value))
        return Interval(value, low, high, n)
    means = _resampled(lambda rows: x[rows].mean(1), n, n_resamples, np.random.default_rng(seed))
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    return Interval(value, low, high, n)


def bootstrap_mean_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """mean(first) - mean(second), paired: images are drawn, each with both of its values.

    With ``first`` and ``second`` the correctness on mixed_same and mixed_rand this is the BG-Gap. Each mean is over the
    images that have that value, in every resample as in the estimate.

    Args:
        first: (N,) one number an image, NaN where it has none.
        second: (N,) of the same images.
        confidence: in (0, 1).
        n_resamples: resamples drawn, at least 1.
        seed: seed or generator; the global state is never touched.

    Returns:
        Interval: n counts images with both values. NaN value when either column is empty; NaN ends when fewer than two
        images have any value.

    Raises:
        ValueError: columns of different length, infinite values, or a setting out of range.

    Example:
        >>> bootstrap_mean_difference([1, 1, 1, 1], [0, 0, 0, 0])
        Interval(value=1.0, low=1.0, high=1.0, n=4)
    """
    x, y = _pair(first, second)
    _check_settings(confidence, n_resamples)
    has_x, has_y = ~np.isnan(x), ~np.isnan(y)
    both = int((has_x & has_y).sum())
    if not (has_x.any() and has_y.any()):
        return Interval(math.nan, math.nan, math.nan, both)
    value = float(x[has_x].mean() - y[has_y].mean())
    if int((has_x | has_y).sum()) < 2:
        return Interval(value, math.nan, math.nan, both)
    # images with equal rows are interchangeable: draw how often each kind of row comes, not which image
    kinds, times = np.unique(
        np.stack([np.where(has_x, x, np.inf), np.where(has_y, y, np.inf)], 1), axis=0, return_counts=True
    )
    given = np.isfinite(kinds)
    numbers = np.where(given, kinds, 0.0)
    rng = np.random.default_rng(seed)
    if len(kinds) <= 64:
        drawn = rng.multinomial(len(x), times / len(x), size=n_resamples).astype(np.float64)
        with np.errstate(invalid="ignore"):
            means = (drawn @ numbers) / (drawn @ given)
        differences = means[:, 0] - means[:, 1]
    else:
        differences = _resampled(lambda rows: _mean_of(x[rows]) - _mean_of(y[rows]), len(x), n_resamples, rng)
    tail = (1 - confidence) / 2
    # a resample in which one column has no value at all says nothing about the difference
    low, high = (float(end) for end in np.nanquantile(differences, [tail, 1 - tail]))
    return Interval(value, low, high, both)


def paired_permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    n_resamples: int = 9999,
    seed: int | np.random.Generator = 0,
) -> PermutationTest:
    """Whether two models (or two conditions) differ on the same images: signs of the differences are exchanged.

    If nothing distinguishes the two, each image's difference could as well have had the other sign. Exact where the
    patterns can be counted: differences of one size (right against wrong: McNemar's exact test), or few that are not 0.

    Args:
        first: (N,) one number an image.
        second: (N,) of the same images in the same order; images with NaN in either are left out.
        n_resamples: sign patterns drawn where they are too many to count; p >= 1 / (n_resamples + 1).
        seed: seed or generator; the global state is never touched.

    Raises:
        ValueError: columns of different length, infinite values, or a setting out of range.

    Example:
        >>> paired_permutation_test([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]).p_value
        0.03125
    """
    x, y = _pair(first, second)
    _check_settings(0.95, n_resamples)
    d = (x - y)[~np.isnan(x - y)]
    if not len(d):
        return PermutationTest(math.nan, math.nan, 0, True)
    difference, moved = float(d.mean()), d[d != 0]
    m, sizes = len(moved), np.unique(np.abs(moved))
    if m == 0:
        return PermutationTest(0.0, 1.0, len(d), True)
    if len(sizes) == 1:
        p = float(stats.binomtest(int((moved > 0).sum()), m, 0.5).pvalue)
        return PermutationTest(difference, min(p, 1.0), len(d), True)
    observed = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()  # ties count as extreme whatever the rounding
    if m <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=m)))
        return PermutationTest(difference, float((np.abs(signs @ moved) >= observed).mean()), len(d), True)
    rng, extreme = np.random.default_rng(seed), 0
    for size in _chunks(n_resamples, m):
        flips = rng.integers(0, 2, (size, m), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(flips @ moved) >= observed).sum())
    return PermutationTest(difference, (extreme + 1) / (n_resamples + 1), len(d), False)


def correct_p_values(p_values: ArrayLike, method: Literal["holm", "benjamini-hochberg"] = "holm") -> Floats:
    """p-values corrected for their number, in the order given; compare them with the level as usual.

    Args:
        p_values: (M,) in [0, 1]; NaN (no test was possible) stays NaN and does not count.
        method: ``"holm"`` bounds the chance of any false discovery; ``"benjamini-hochberg"`` the share of false ones.

    Raises:
        ValueError: not (M,), or values outside [0, 1].

    Source: Holm, Scandinavian Journal of Statistics 6, 1979; Benjamini and Hochberg, JRSS B 57, 1995.

    Example:
        >>> correct_p_values([0.01, 0.04, 0.03]).round(2).tolist()
        [0.03, 0.06, 0.06]
    """
    check_option(method, ("holm", "benjamini-hochberg"), name="method")
    p = _column(p_values, "p_values")
    given = ~np.isnan(p)
    m = int(given.sum())
    if m and (p[given].min() < 0 or p[given].max() > 1):
        raise ValueError(f"p_values: expected values in [0, 1], got [{p[given].min():g}, {p[given].max():g}]")
    order = np.argsort(p[given], kind="stable")
    ranked = p[given][order]
    if method == "holm":
        corrected = np.maximum.accumulate(ranked * np.arange(m, 0, -1)) if m else ranked
    else:
        corrected = np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])[::-1] if m else ranked
    result = np.full(len(p), np.nan)
    back = np.empty(m)
    back[order] = np.minimum(corrected, 1.0)
    result[given] = back
    return result


def _column(values: ArrayLike, name: str) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1:
        raise ValueError(f"{name}: expected one number an image (N,), got shape {x.shape}")
    if bool(np.isinf(x).any()):
        raise ValueError(f"{name}: expected finite numbers or NaN, got infinity")
    return x


def _pair(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    x, y = _column(first, "first"), _column(second, "second")
    if len(x) != len(y):
        raise ValueError(f"second: expected the same {len(x)} images as first, got {len(y)}")
    return x, y


def _check_settings(confidence: float, n_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number in (0, 1), got {confidence!r}")
    if n_resamples < 1:
        raise ValueError(f"n_resamples: expected at least 1, got {n_resamples!r}")


def _chunks(total: int, width: int) -> list[int]:
    step = max(1, _CHUNK // max(width, 1))
    return [min(step, total - start) for start in range(0, total, step)]


def _resampled(
    statistic: Callable[[NDArray[Any]], Floats], n: int, n_resamples: int, rng: np.random.Generator
) -> Floats:
    parts = [statistic(rng.integers(0, n, (size, n), dtype=np.int32)) for size in _chunks(n_resamples, n)]
    return np.concatenate(parts)


def _mean_of(rows: Floats) -> Floats:
    given = ~np.isnan(rows)
    with np.errstate(invalid="ignore"):
        result: Floats = np.where(given, rows, 0.0).sum(1) / given.sum(1)
    return result
