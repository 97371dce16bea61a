"""A lower bound for how many objects are right on a background of some source, from a two-stage sample.

First objects are drawn, then backgrounds for each of them. Answers about one object are not independent, so n objects
with m backgrounds are not n m trials: what is independent are the objects' shares of right answers, numbers in [0, 1]
whose mean is the accuracy. `certified_accuracy` bounds that mean; only the objects have to be a sample, and nothing is
assumed of how they differ.

Source: Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative variable,
Mathematical Methods of Statistics 14, 2005; Learned-Miller and Thomas, A new confidence interval for the mean of a
bounded random variable, arXiv 1905.06208; Clopper and Pearson, Biometrika 26, 1934.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import integrate, optimize, stats

from torch_bgdebias.checks import check_confidence
from torch_bgdebias.metrics.columns import Floats, array_of, group_numbers

__all__ = ["AccuracyCertificate", "certified_accuracy"]


@dataclasses.dataclass(frozen=True)
class AccuracyCertificate:
    """The guarantee from a sample of objects, each on several backgrounds.

    Attributes:
        objects: how many objects (or groups of them) are the sample.
        backgrounds: drawn for each object.
        accuracy: share of the answers that are right; in groups the mean of the groups' shares.
        at_least: the accuracy is at least this, at the level ``confidence``.
        one_background_at_least: the same by Clopper and Pearson from each object's first background alone.
        confidence: the level.
    """

    objects: int
    backgrounds: int
    accuracy: float
    at_least: float
    one_background_at_least: float
    confidence: float


def certified_accuracy(
    right: ArrayLike, *, groups: ArrayLike | None = None, confidence: float = 0.95
) -> AccuracyCertificate:
    """A lower confidence bound for the accuracy of objects on backgrounds drawn from a source.

    The bound is Gaffke's for the mean of numbers in [0, 1]: the level's quantile of their mean under uniform Dirichlet
    weights, of which one lies on 0. With one background an object it is Clopper and Pearson's, which is proven; beyond
    that no distribution is known on which it fails, and a proof is missing; that of ``one_background_at_least`` is not.

    Args:
        right: (N, M) of 0 and 1: one row an object, its M backgrounds in the order in which they were drawn, each for
            each object anew.
        groups: (N,) integers or strings of objects that are not independent (of one patient, of one film). The bound is
            then for an object of a group that is drawn at random, all groups alike.
        confidence: in (0, 1).

    Raises:
        ValueError: not (N, M) of 0 and 1, no object, groups of another length, or a confidence out of range.

    Example:
        >>> certificate = certified_accuracy([[1, 1, 1, 1]] * 90 + [[1, 1, 0, 0]] * 10)
        >>> round(certificate.accuracy, 3), round(certificate.at_least, 3)
        (0.95, 0.909)
    """
    answers = _checked_answers(right)
    check_confidence(confidence)
    shares, first_answers = answers.mean(1), answers[:, 0]
    if groups is not None:
        number = group_numbers(groups, shares)
        shares = np.bincount(number, weights=shares) / np.bincount(number)
        first_answers = first_answers[np.unique(number, return_index=True)[1]]
    n, count = len(first_answers), int(first_answers.sum())
    return AccuracyCertificate(
        objects=n,
        backgrounds=answers.shape[1],
        accuracy=float(shares.mean()),
        at_least=_mean_at_least(shares, 1 - confidence),
        one_background_at_least=_share_at_least(count, n, 1 - confidence),
        confidence=confidence,
    )


def _checked_answers(right: ArrayLike) -> Floats:
    answers = array_of(right, np.float64)
    if answers.ndim != 2 or 0 in answers.shape or not bool(((answers == 0) | (answers == 1)).all()):
        received = f"shape {answers.shape}" if answers.ndim != 2 or 0 in answers.shape else "other numbers"
        raise ValueError(f"right: expected 0 and 1 (N, M), M backgrounds an object, got {received}")
    return answers


def _share_at_least(count: int, n: int, error: float) -> float:
    return float(stats.beta.ppf(error, count, n - count + 1)) if count else 0.0


def _mean_at_least(values: Floats, error: float) -> float:
    """Gaffke's bound for the mean of independent numbers in [0, 1]."""
    n, count = len(values), int((values == 1).sum())
    if bool(((values == 0) | (values == 1)).all()):
        return _share_at_least(count, n, error)
    points, weights = np.unique(np.r_[0.0, values], return_counts=True)
    parameters = weights.astype(np.float64)
    mean = float(parameters @ points) / (n + 1)
    spread = math.sqrt(float(parameters @ np.square(points - mean)) / ((n + 1) * (n + 2)))
    # the density is log-concave, so that less than e^(1 - k) of it is further than k spreads below the mean
    far = max(mean - (3 - math.log(error)) * spread, 0.0)
    if _weighted_below(far, points, parameters) >= error:  # only where rounding says so, next to 0
        return 0.0
    top = float(values.max())
    return float(optimize.brentq(lambda t: _weighted_below(t, points, parameters) - error, far, top, xtol=1e-12))


def _weighted_below(limit: float, points: Floats, parameters: Floats) -> float:
    """P(mean of the points under Dirichlet weights <= limit), by the inversion of a characteristic function.

    The weights are gamma variables over their sum, so the mean is below the limit where a sum of gamma variables times
    (point - limit) is below 0 (Gil-Pelaez, Biometrika 38, 1951; Imhof, Biometrika 48, 1961).
    """
    distances = points - limit
    if distances.max() <= 0 or distances.min() >= 0:
        return float(distances.max() <= 0)
    distances = distances / math.sqrt(float(parameters @ np.square(distances)))

    def integrand(u: float) -> float:
        angle = float(parameters @ np.arctan(u * distances))
        return math.sin(angle) * math.exp(-0.5 * float(parameters @ np.log1p(np.square(u * distances)))) / u

    return 0.5 - float(integrate.quad(integrand, 0, np.inf, limit=400, epsabs=1e-11)[0]) / math.pi
