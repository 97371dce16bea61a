"""Intervals and tests for figures that are means over images: bootstrap, paired permutation, correction for many tests.

Everything works on one value per image (1 and 0 for right and wrong), in NumPy, and draws from generators seeded by the
caller. Images are the unit that is drawn, so whatever belongs to one image (its two variants) stays together. Where
images come in groups (pictures of one patient, frames of one film, renderings of one object) they are not independent,
and intervals over images are too narrow: ``groups=`` makes the group the unit that is drawn.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from torch_bgdebias.checks import check_confidence, check_count, check_option
from torch_bgdebias.metrics.columns import Floats, group_numbers, number_column, paired_number_columns
from torch_bgdebias.names import CORRECTIONS

__all__ = [
    "Interval",
    "PermutationTest",
    "bootstrap_mean",
    "bootstrap_mean_difference",
    "correct_p_values",
    "paired_permutation_test",
]

_CHUNK = 4_000_000  # random numbers held at once
_EXACT = 14  # up to 2**14 sign patterns are counted out instead of drawn
#: from so many differences on, of which none has more than this share of the squares, the sum of their random signs is
#: not drawn either: a saddlepoint approximation is right to a hundredth of its p-value, 9999 drawn patterns are not
_MANY, _LARGEST = 200, 0.05
#: this near to 0, in standard deviations, the saddlepoint is lost in rounding and the normal distribution is right
_NEAR = 1e-2
_SPAN = 20_000  # whole numbers whose sizes add up to this have their sum's distribution computed instead


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean (or a difference of means) with its interval and the number of images behind it."""

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
        exact: whether all sign patterns were counted instead of drawn or approximated.
    """

    difference: float
    p_value: float
    n: int
    exact: bool


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """Mean over images with its percentile bootstrap interval.

    For values that are only 0 and 1 (accuracy, consistency of decisions) the number of ones in a resample is binomial,
    so the interval's ends are taken from that distribution and nothing is drawn.

    Args:
        values: (N,) one number an image; NaN means that the image has none and is left out.
        groups: (N,) integers or strings: images of the same group are drawn together. The mean is still over images.
        confidence: in (0, 1).
        n_resamples: resamples drawn, at least 1.
        seed: seed or generator; the global state is never touched.

    Returns:
        Interval: of no images: all NaN. Of one image (or group): the value, with NaN ends. All values equal: ends equal
        the value.

    Raises:
        ValueError: not (N,), infinite values, groups of another length, or a setting out of range.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; for groups Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 3.8 (whole groups drawn).

    Example:
        >>> bootstrap_mean([1, 1, 1, 0, 1, 1, 0, 1, 1, 1])
        Interval(value=0.8, low=0.5, high=1.0, n=10)
    """
    x = number_column(values, "values")
    _check_settings(confidence, n_resamples)
    group = None if groups is None else group_numbers(groups, x)
    group, x = (None if group is None else group[~np.isnan(x)]), x[~np.isnan(x)]
    value, n = (float(x.mean()) if len(x) else math.nan), len(x)
    if n < 2 or (group is not None and len(np.unique(group)) < 2):
        return Interval(value, math.nan, math.nan, n)
    if bool((x == x[0]).all()):
        return Interval(float(x[0]), float(x[0]), float(x[0]), n)
    tail = (1 - confidence) / 2
    rng = np.random.default_rng(seed)
    if group is not None:
        sums, counts = _group_totals(x, group)
        means = _resampled(lambda rows: sums[rows].sum(1) / counts[rows].sum(1), len(sums), n_resamples, rng)
    elif bool(((x == 0) | (x == 1)).all()):
        low, high = (float(end) / n for end in stats.binom.ppf([tail, 1 - tail], n, value))
        return Interval(value, low, high, n)
    else:
        means = _resampled(lambda rows: x[rows].mean(1), n, n_resamples, rng)
    low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
    return Interval(value, low, high, n)


def bootstrap_mean_difference(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Interval:
    """mean(first) - mean(second), paired: images are resampled with both of their values.

    With ``first`` and ``second`` the correctness on mixed_same and mixed_rand this is the BG-Gap. Each mean is over the
    images that have that value, in every resample as in the estimate.

    Args:
        first: (N,) one number an image, NaN where it has none.
        second: (N,) of the same images.
        groups: (N,) integers or strings: images of the same group are drawn together.
        confidence: in (0, 1).
        n_resamples: resamples drawn, at least 1.
        seed: seed or generator; the global state is never touched.

    Returns:
        Interval: as `mean_difference_interval`, with the same errors.

    Example:
        >>> bootstrap_mean_difference([1, 1, 1, 1], [0, 0, 0, 0])
        Interval(value=1.0, low=1.0, high=1.0, n=4)
    """
    x, y = paired_number_columns(first, second)
    _check_settings(confidence, n_resamples)
    has_x, has_y = ~np.isnan(x), ~np.isnan(y)
    in_both = int((has_x & has_y).sum())
    if not (has_x.any() and has_y.any()):
        return Interval(math.nan, math.nan, math.nan, in_both)
    value = float(x[has_x].mean() - y[has_y].mean())
    # what a drawn unit adds to the sums and the counts of the two means; the unit is an image or a group
    table = np.stack([np.where(has_x, x, 0.0), np.where(has_y, y, 0.0), has_x, has_y], 1)[has_x | has_y]
    group = None if groups is None else group_numbers(groups, x)
    if group is not None:
        table = _group_totals(table, group[has_x | has_y])[0]
    if len(table) < 2:
        return Interval(value, math.nan, math.nan, in_both)
    # units with equal rows are interchangeable: draw how often each kind of row comes, not which unit
    kinds, times = np.unique(table, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    if len(kinds) <= 64:
        totals = rng.multinomial(len(table), times / len(table), size=n_resamples).astype(np.float64) @ kinds
    else:
        columns = np.ascontiguousarray(table.T)
        totals = _resampled(
            lambda rows: np.stack([column[rows].sum(1) for column in columns], 1), len(table), n_resamples, rng
        )
    with np.errstate(invalid="ignore"):
        differences = totals[:, 0] / totals[:, 2] - totals[:, 1] / totals[:, 3]
    tail = (1 - confidence) / 2
    # a resample in which one column has no value at all says nothing about the difference
    low, high = (float(end) for end in np.nanquantile(differences, [tail, 1 - tail]))
    return Interval(value, low, high, in_both)


def paired_permutation_test(
    first: ArrayLike,
    second: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    n_resamples: int = 9999,
    seed: int | np.random.Generator = 0,
) -> PermutationTest:
    """Test whether two models (or conditions) differ on the same images, by flipping signs of the differences.

    If nothing distinguishes the two, each image's difference could as well have had the other sign. Exact where the
    patterns can be counted: differences of one size (right against wrong: McNemar's exact test), whole numbers (changes
    of a BG-Gap) whose sizes add up to at most 20,000, or few that are not 0. Of 200 differences and more of many sizes
    p is a saddlepoint approximation, right to one percent of itself. Elsewhere patterns are drawn, and p cannot get
    below 1 / (n_resamples + 1), which matters where it will be corrected for many tests.

    Args:
        first: (N,) one number an image.
        second: (N,) of the same images in the same order; images with NaN in either are left out.
        groups: (N,) integers or strings: the differences of one group change their signs together, because images of
            one group are not independent of each other.
        n_resamples: sign patterns drawn where they are too many to count; p >= 1 / (n_resamples + 1).
        seed: seed or generator; the global state is never touched.

    Raises:
        ValueError: columns or groups of different length, infinite values, or a setting out of range.

    Example:
        >>> paired_permutation_test([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]).p_value
        0.03125
    """
    x, y = paired_number_columns(first, second)
    _check_settings(0.95, n_resamples)
    changes = (x - y)[~np.isnan(x - y)]
    if not len(changes):
        return PermutationTest(math.nan, math.nan, 0, True)
    group = None if groups is None else group_numbers(groups, x)
    by_unit = changes if group is None else _group_totals(changes, group[~np.isnan(x - y)])[0]
    difference, nonzero = float(changes.mean()), by_unit[by_unit != 0]
    m, sizes = len(nonzero), np.unique(np.abs(nonzero))
    if m == 0:
        return PermutationTest(difference, 1.0, len(changes), True)
    if len(sizes) == 1:
        return PermutationTest(difference, _sign_test_p(int((nonzero > 0).sum()), m), len(changes), True)
    observed = abs(nonzero.sum()) - 1e-9 * np.abs(nonzero).sum()  # ties count as extreme whatever the rounding
    if bool((sizes == sizes.round()).all()) and np.abs(nonzero).sum() <= _SPAN:
        return PermutationTest(difference, _whole_number_p(nonzero), len(changes), True)
    if m <= _EXACT:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=m)))
        return PermutationTest(difference, float((np.abs(signs @ nonzero) >= observed).mean()), len(changes), True)
    squares = np.square(nonzero)
    if m >= _MANY and len(sizes) >= _MANY // 2 and squares.max() <= _LARGEST * squares.sum():
        return PermutationTest(
            difference, _saddlepoint_p(np.abs(nonzero), abs(float(nonzero.sum()))), len(changes), False
        )
    rng, extreme = np.random.default_rng(seed), 0
    for size in _chunks(n_resamples, m):
        flips = rng.integers(0, 2, (size, m), dtype=np.int8).astype(np.float64)  # products of whole numbers are slow
        extreme += int((np.abs(2 * (flips @ nonzero) - nonzero.sum()) >= observed).sum())
    return PermutationTest(difference, (extreme + 1) / (n_resamples + 1), len(changes), False)


def _saddlepoint_p(sizes: Floats, total: float) -> float:
    """Chance that the sum of these sizes with random signs is at least so far from 0.

    Source: Lugannani and Rice, Advances in Applied Probability 12, 1980; Robinson, JRSS B 44, 1982 (permutation tests).
    """
    spread = math.sqrt(float(np.square(sizes).sum()))
    d, s = sizes / spread, total / spread
    if s < _NEAR:
        return 2 * float(special.ndtr(-s))

    def slope(t: float) -> float:
        return float((d * np.tanh(t * d)).sum()) - s

    high = 1.0
    while slope(high) < 0:
        if high > 1e6:  # the sum of all sizes, or next to it
            return 2.0 ** (1 - len(d))
        high *= 2
    t = float(optimize.brentq(slope, 0.0, high, xtol=1e-14, rtol=1e-14))
    # log cosh, without overflow
    cumulant = float((t * d + np.log1p(np.exp(-2 * t * d)) - math.log(2)).sum())
    w = math.sqrt(2 * (t * s - cumulant))
    v = t * math.sqrt(float(np.square(d / np.cosh(np.minimum(t * d, 300.0))).sum()))
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    return min(1.0, 2 * (float(special.ndtr(-w)) + density * (1 / v - 1 / w)))


@functools.lru_cache(maxsize=256)
def _fair_binomial(count: int) -> Floats:
    """Chances of 0, 1, ... of so many, each with chance 1/2."""
    return np.asarray(stats.binom.pmf(np.arange(count + 1), count, 0.5), np.float64)


@functools.lru_cache(maxsize=65536)  # classes of one size have few different counts
def _sign_test_p(positive: int, m: int) -> float:
    """Chance that, of m signs that are equally likely, one kind is as rare as this, or rarer."""
    fewer = min(positive, m - positive)
    return min(1.0, 2 * float(special.bdtr(fewer, m, 0.5)))


def _whole_number_p(steps: Floats) -> float:
    """Share of all sign patterns whose sum is at least as far from 0: a binomial distribution per size, convolved."""
    distribution, total = np.ones(1), int(np.abs(steps).sum())
    for size, count in zip(*np.unique(np.abs(steps), return_counts=True), strict=True):
        positive = np.zeros(int(size) * count + 1)
        positive[:: int(size)] = _fair_binomial(int(count))
        distribution = np.convolve(distribution, positive)
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(distribution[np.abs(sums) >= abs(round(steps.sum()))].sum()))


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
    check_option(method, CORRECTIONS, name="method")
    p = number_column(p_values, "p_values")
    is_known = ~np.isnan(p)
    m = int(is_known.sum())
    if m and (p[is_known].min() < 0 or p[is_known].max() > 1):
        raise ValueError(f"p_values: expected values in [0, 1], got [{p[is_known].min():g}, {p[is_known].max():g}]")
    order = np.argsort(p[is_known], kind="stable")
    ranked = p[is_known][order]
    if method == "holm":
        corrected = np.maximum.accumulate(ranked * np.arange(m, 0, -1)) if m else ranked
    else:
        corrected = np.minimum.accumulate((ranked * m / np.arange(1, m + 1))[::-1])[::-1] if m else ranked
    result = np.full(len(p), np.nan)
    back = np.empty(m)
    back[order] = np.minimum(corrected, 1.0)
    result[is_known] = back
    return result


def _group_totals(values: Floats, group: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Sums (G, ...) of the values (N, ...) of each group that occurs, and its number of images (G,)."""
    number, counts = np.unique(group, return_inverse=True, return_counts=True)[1:]
    sums = np.zeros((len(counts), *values.shape[1:]))
    np.add.at(sums, number, values)
    return sums, counts.astype(np.float64)


def _check_settings(confidence: float, n_resamples: int) -> None:
    check_confidence(confidence)
    check_count(n_resamples, name="n_resamples")


def _chunks(total: int, width: int) -> list[int]:
    step = max(1, _CHUNK // max(width, 1))
    return [min(step, total - start) for start in range(0, total, step)]


def _resampled(
    statistic: Callable[[NDArray[Any]], Floats], n: int, n_resamples: int, rng: np.random.Generator
) -> Floats:
    parts = [statistic(rng.integers(0, n, (size, n), dtype=np.int32)) for size in _chunks(n_resamples, n)]
    return np.concatenate(parts)
