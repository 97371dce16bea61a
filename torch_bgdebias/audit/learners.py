"""Simple learners in closed form, so that a thousand permuted labellings cost little more than one.

Features are standardised once, without labels. Three learners read a class off them: the one best feature, a ridge
regression, and a small network, whose hidden layer is drawn and whose last layer is a ridge regression. Where pictures
come in kinds, of which a class may have more than its share, likeness to groups of them takes the place of the one best
feature (`torch_bgdebias.audit.kinds`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LEARNERS",
    "Floats",
    "Folds",
    "half_hat",
    "hidden_layer",
    "hinged",
    "label_folds",
    "penalty_for",
    "ridge_scores",
    "single_scores",
    "standardised",
]

Floats = NDArray[np.float32]
#: the folds' number of every picture
Folds = NDArray[np.int64]

#: the one best feature, a ridge regression on all, and one on a hidden layer of `HIDDEN` drawn units
LEARNERS = ("single", "groups", "linear", "network")
HIDDEN = 128
#: largest distance from the mean, in standard deviations, that a feature is taken to have
CLIP = 4.0
#: at most so many principal components of a table are learnt from
MOST_COMPONENTS = 200


def standardised(table: NDArray[np.floating]) -> Floats:
    """Columns of mean 0 and standard deviation 1, NaN at the mean, outliers pulled in, constant columns left out.

    Args:
        table: (N, D), NaN where a picture lacks a feature.

    Returns:
        (N, d), rotated to its principal components where it has more than `MOST_COMPONENTS` of them; d may be 0.
    """
    values = np.asarray(table, np.float64)
    is_known = np.isfinite(values)
    counts = is_known.sum(0)
    mean = np.where(is_known, values, 0.0).sum(0) / np.maximum(counts, 1)
    centred = np.where(is_known, values - mean, 0.0)
    spread = np.sqrt(np.square(centred).sum(0) / np.maximum(counts, 1))
    varying = spread > 1e-6 * np.maximum(1.0, np.abs(mean))
    unit = np.clip(centred[:, varying] / spread[varying], -CLIP, CLIP)
    unit -= unit.mean(0)
    if unit.shape[1] > MOST_COMPONENTS:
        _, vectors = np.linalg.eigh(unit.T @ unit)
        unit = unit @ vectors[:, ::-1][:, :MOST_COMPONENTS]
    return np.ascontiguousarray(unit, np.float32)


def hidden_layer(features: Floats, seed: int) -> Floats:
    """What `HIDDEN` drawn units make of standardised features: rectified, then centred and scaled.

    Args:
        features: (N, d).
        seed: of the units' weights and thresholds.
    """
    random = np.random.default_rng(seed)
    scale = float(np.sqrt(np.square(features, dtype=np.float64).sum(1).mean())) or 1.0
    weights = random.standard_normal((features.shape[1], HIDDEN)).astype(np.float32) / np.float32(scale)
    active = np.maximum(features @ weights + random.standard_normal(HIDDEN).astype(np.float32), 0)
    active -= active.mean(0)
    spread = active.std(0)
    unit: Floats = active[:, spread > 1e-6] / spread[spread > 1e-6]
    return unit


def label_folds(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> Folds:
    """A fold for every picture. Pictures of one group share it.

    Without groups (each picture its own) every fold has its share of every class. With groups the folds are drawn
    without using the labels, which keeps permuted labels comparable.
    """
    random = np.random.default_rng(seed)
    folds = np.empty(len(labels), np.int64)
    if len(np.unique(groups)) == len(groups):
        start = 0
        for label in np.unique(labels):
            rows = random.permutation(np.flatnonzero(labels == label))
            folds[rows] = (start + np.arange(len(rows))) % count
            start += len(rows)
        return folds
    names, number_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    load = np.zeros(count)
    fold_of = np.empty(len(names), np.int64)
    order = random.permutation(len(names))
    for group in order[np.argsort(-sizes[order], kind="stable")]:  # the largest first, each into the emptiest fold
        fold_of[group] = int(load.argmin())
        load[fold_of[group]] += sizes[group]
    return np.asarray(fold_of[number_of])


def hinged(features: Floats) -> Floats:
    """The features (N, d) and their parts beyond one standard deviation on either side, (N, 3 d), standardised."""
    parts = np.concatenate([features, np.maximum(features - 1, 0), np.maximum(-features - 1, 0)], axis=1)
    parts -= parts.mean(0)
    spread = parts.std(0)
    unit: Floats = parts[:, spread > 1e-6] / spread[spread > 1e-6]
    return unit


def penalty_for(features: Floats, freedom: float) -> float:
    """The ridge penalty at which the trace of the hat matrix is ``freedom``, or 0.9 of the rank where that is less."""
    wide = np.asarray(features, np.float64)
    gram = wide.T @ wide if wide.shape[1] <= wide.shape[0] else wide @ wide.T
    values = np.linalg.eigvalsh(gram)
    values = values[values > 1e-9 * max(values.max(initial=0.0), 1e-12)]
    target = min(freedom, 0.9 * len(values))
    low, high = 1e-8 * float(values.max()), 1e8 * float(values.max())
    for _ in range(60):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if (values / (values + middle)).sum() > target else (low, middle)
    return high


def half_hat(features: Floats, penalty: float) -> Floats:
    """A (N, d) so that |A' y|^2 is what a ridge regression on the features explains of centred labels y."""
    wide = np.asarray(features, np.float64)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    values = np.maximum(values, 0.0)
    return np.ascontiguousarray(wide @ (vectors / np.sqrt(values + penalty)), np.float32)


def ridge_scores(features: Floats, target: Floats, folds: Folds, penalty: float) -> NDArray[np.float64]:
    """Held-out scores (N, K) of targets (N, K), each fold's by a ridge regression on the others."""

    def predicted(train: Floats, targets: Floats, test: Floats) -> Floats:
        inner = train.T @ train + penalty * np.eye(train.shape[1])
        return np.asarray(test @ np.linalg.solve(inner, train.T @ targets))

    return _held_out(features, target, folds, predicted)


def single_scores(features: Floats, target: Floats, folds: Folds) -> NDArray[np.float64]:
    """Held-out scores (N, K) by the one feature that goes best with each target on the other folds."""

    def predicted(train: Floats, targets: Floats, test: Floats) -> Floats:
        slope = train.T @ targets / np.maximum(train.std(0), 1e-9)[:, None]
        best = np.abs(slope).argmax(0)
        return np.asarray(test[:, best] * np.sign(slope[best, np.arange(target.shape[1])]))

    return _held_out(features, target, folds, predicted)


def _held_out(
    features: Floats, target: Floats, folds: Folds, predicted: Callable[[Floats, Floats, Floats], Floats]
) -> NDArray[np.float64]:
    """Each fold's predictions by the others, their mean taken out; features and targets come centred on those."""
    scores = np.zeros(target.shape)
    for fold in np.unique(folds):
        rows = folds == fold
        train, targets = np.asarray(features[~rows], np.float64), np.asarray(target[~rows], np.float64)
        centre = train.mean(0)
        predictions = predicted(train - centre, targets - targets.mean(0), features[rows] - centre)
        scores[rows] = predictions - predictions.mean(0)
    return scores
