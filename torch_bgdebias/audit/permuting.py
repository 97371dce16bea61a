"""Permuted labels and the step-down max-T correction for many statistics at once (Westfall and Young, 1993).

The chance that anything at all is reported where no feature depends on the class is at most the level, exactly and for
any number of features, learners and classes: the labels as they are take one of P + 1 places that chance makes equally
likely, and the largest statistic of each place is compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from torch_bgdebias.audit.learners import Floats, Folds

__all__ = ["adjusted_p_values", "explained", "levelled", "shuffled_labels", "strongest"]


def shuffled_labels(
    labels: NDArray[np.int64], groups: NDArray[np.int64], folds: Folds, count: int, seed: int
) -> NDArray[np.int64]:
    """The labels in ``count`` + 1 orders (N, count + 1), the first as they are.

    Without groups, labels change places within their fold, so that every fold keeps its classes. With groups, a group
    of one class changes its class with another such group; labels in a group of several classes change places there.
    """
    random = np.random.default_rng(seed)
    orders = np.repeat(labels[:, None], count + 1, axis=1)
    each_alone = len(np.unique(groups)) == len(groups)
    blocks = folds if each_alone else groups
    members = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    if each_alone:
        for column in range(1, count + 1):
            for rows in members:
                orders[rows, column] = labels[random.permutation(rows)]
        return orders
    pure = [rows for rows in members if len(np.unique(labels[rows])) == 1]
    mixed = [rows for rows in members if len(np.unique(labels[rows])) > 1]
    first = np.array([labels[rows[0]] for rows in pure], np.int64)
    rows_of_pure = np.concatenate(pure) if pure else np.empty(0, np.int64)
    sizes = [len(rows) for rows in pure]
    for column in range(1, count + 1):
        orders[rows_of_pure, column] = np.repeat(random.permutation(first), sizes)
        for rows in mixed:
            orders[rows, column] = labels[random.permutation(rows)]
    return orders


def explained(basis: Floats, labels: Floats) -> NDArray[np.float64]:
    """Share (M,) of each labelling's variance that a ridge regression explains, by its `half_hat` (N, d).

    Its cube root, which is nearly normal where chance alone is at work (Wilson and Hilferty, 1931).
    """
    explained_squares = np.square(basis.T @ labels, dtype=np.float64).sum(0)
    total = np.square(labels, dtype=np.float64).sum(0)
    return np.asarray(np.cbrt(explained_squares / np.maximum(total, 1e-12)))


def strongest(features: Floats, labels: Floats) -> NDArray[np.float64]:
    """The largest squared correlation (M,) of any feature (N, d), standardised, times N / 2."""
    products = features.T @ labels
    largest = np.square(np.abs(products).max(0), dtype=np.float64)
    total = np.square(labels, dtype=np.float64).sum(0) * len(labels)
    return np.asarray(0.5 * len(labels) * largest / np.maximum(total, 1e-12))


def levelled(largest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Maxima of many (M,) on the scale of a normal variable, by the Gumbel distribution that fits their moments."""
    scale = max(float(largest.std()), 1e-9) * np.sqrt(6) / np.pi
    excess = (largest - float(largest.mean())) / scale + np.euler_gamma
    upper = -special.expm1(-np.exp(-np.maximum(excess, -30.0)))  # the chance of more
    return np.asarray(-special.ndtri(np.clip(upper, 1e-300, 1.0 - 1e-16)))


def adjusted_p_values(statistics: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Step-down max-T over tests.

    Args:
        statistics: (T, P + 1), large where a class can be predicted; column 0 belongs to the true labels.

    Returns:
        Corrected p-values (T,), no less than 1 / (P + 1), and the statistics in standard deviations above the mean of
        their row (T,).
    """
    mean, spread = statistics.mean(1, keepdims=True), statistics.std(1, keepdims=True)
    # with the first column among what is standardised, all columns are treated alike
    scaled = np.where(spread > 1e-12, (statistics - mean) / np.maximum(spread, 1e-12), 0.0)
    order = np.argsort(-scaled[:, 0], kind="stable")
    corrected = np.ones(len(statistics))
    largest = np.full(statistics.shape[1], -np.inf)
    for row in order[::-1]:  # from the weakest: the largest of this and all weaker ones
        largest = np.maximum(largest, scaled[row])
        corrected[row] = float((largest >= scaled[row, 0] - 1e-12).mean())
    corrected[order] = np.maximum.accumulate(corrected[order])
    return corrected, scaled[:, 0]
