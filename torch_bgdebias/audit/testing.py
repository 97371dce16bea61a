"""Tests every cue, class and learner against permuted labels, then estimates how well each class is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.audit.appearance import GRID
from torch_bgdebias.audit.cues import View
from torch_bgdebias.audit.kinds import group_likeness
from torch_bgdebias.audit.learners import (
    Floats,
    Folds,
    half_hat,
    hidden_layer,
    hinged,
    penalty_for,
    ridge_scores,
    single_scores,
)
from torch_bgdebias.audit.permuting import adjusted_p_values, explained, levelled, strongest
from torch_bgdebias.metrics.auc import auc_interval
from torch_bgdebias.metrics.statistics import Interval

__all__ = ["ALL", "Outcome", "Tested", "area", "place_map", "place_scores", "telling", "test_everything"]

#: labellings that are worked on at once
_CHUNK = 250
_PLACES = "places"
#: learners that take the largest of many, and how many learners a view has
_LARGEST = ("single", "groups")
_LEARNERS_A_VIEW = 3
#: number of the test of all classes together, where there are more than two
ALL = -1


@dataclass(frozen=True)
class Tested:
    """One test: a view, a learner, and the class that is tested against the rest; `ALL` for all together."""

    cue: str
    view: str
    learner: str
    label: int
    p_value: float
    z: float


@dataclass(frozen=True)
class Outcome:
    """All tests, and the map of places.

    Attributes:
        tests: of every view, learner and class.
        maps: class -> (GRID, GRID) multiple correlation of each place with it, NaN where too few pictures show it.
        thresholds: class -> the correlation that no place exceeds by chance in all but a share ``level`` of cases.
    """

    tests: list[Tested]
    maps: dict[int, NDArray[np.float64]]
    thresholds: dict[int, float]


def test_everything(
    views: Sequence[View],
    places: Sequence[tuple[int, Floats]],
    orders: NDArray[np.int64],
    tested: Sequence[int],
    *,
    seed: int,
    level: float,
) -> Outcome:
    """Test whether any of the classes can be predicted from any of the views or places.

    Args:
        views: what is learnt from.
        places: cells of the picture plane with their bases.
        orders: (N, P + 1) labels, the first column as they are.
        tested: the classes that are tested against the rest.
        seed: of the hidden layers, of each view the seed plus its number (not by `derive_seed`: figures rest on it).
        level: of the map's threshold.
    """
    names: list[tuple[str, str, str, int]] = []
    rows: list[NDArray[np.float64]] = []
    for number, view in enumerate(views):
        for learner, table in tables_of(view, seed + number).items():
            of_learner = []
            for label in tested:
                measure = strongest if learner in _LARGEST else explained
                statistic = np.concatenate([measure(table, part) for part in _centred(orders, label)])
                of_learner.append(levelled(statistic) if learner in _LARGEST else statistic)
                names.append((view.cue, view.name, learner, label))
            if len(tested) > 1:
                of_learner.append(_over_all_classes(of_learner))
                names.append((view.cue, view.name, learner, ALL))
            rows += of_learner
    maps: dict[int, NDArray[np.float64]] = {}
    thresholds: dict[int, float] = {}
    of_places = []
    for label in tested if places else ():
        shares = np.concatenate([_place_shares(places, part) for part in _centred(orders, label)], axis=1)
        largest = shares.max(0)
        of_places.append(levelled(len(orders) * largest / 2))
        names.append((_PLACES, _PLACES, "single", label))
        maps[label] = place_map(places, np.sqrt(shares[:, 0]))
        thresholds[label] = float(np.sqrt(np.quantile(largest, 1 - level)))
    if len(of_places) > 1:
        of_places.append(_over_all_classes(of_places))
        names.append((_PLACES, _PLACES, "single", ALL))
    rows += of_places
    if not rows:
        return Outcome([], maps, thresholds)
    p_values, z = adjusted_p_values(np.stack(rows))
    tests = [Tested(*name, float(p), float(strength)) for name, p, strength in zip(names, p_values, z, strict=True)]
    return Outcome(tests, maps, thresholds)


def tables_of(view: View, seed: int) -> dict[str, Floats]:
    """What each learner's statistic is computed from, by learner."""
    features = view.features
    layer = hidden_layer(features, seed)
    freedom = len(features) / 10
    return {
        **_single_features(view),
        "linear": half_hat(features, penalty_for(features, freedom)),
        "network": half_hat(layer, penalty_for(layer, min(freedom, 10.0))),
    }


def _single_features(view: View) -> dict[str, Floats]:
    """Features of which the best one is taken."""
    if not view.grouped:
        return {"single": hinged(view.features)}
    likeness = group_likeness(view.features)
    return {"groups": hinged(likeness)} if likeness.shape[1] else {}  # few pictures make no groups


def telling(
    view: View, labels: NDArray[np.int64], tested: Sequence[int], folds: Folds, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Held-out scores (N, K) of every class in ``tested``, by learner."""
    target = (labels[:, None] == np.asarray(tested)).astype(np.float32)
    layer = hidden_layer(view.features, seed)
    freedom = len(labels) / 10
    return {
        **{name: single_scores(table, target, folds) for name, table in _single_features(view).items()},
        "linear": ridge_scores(view.features, target, folds, penalty_for(view.features, freedom)),
        "network": ridge_scores(layer, target, folds, penalty_for(layer, min(2 * freedom, 40.0))),
    }


def place_scores(
    places: Sequence[tuple[int, Floats]], labels: NDArray[np.int64], tested: Sequence[int], folds: Folds
) -> NDArray[np.float64]:
    """Held-out scores (N, K) of every class in ``tested``, each fold's from the best place on the others."""
    target = (labels[:, None] == np.asarray(tested)).astype(np.float64)
    scores = np.zeros(target.shape)
    for fold in np.unique(folds):
        rows = folds == fold
        centred = target[~rows] - target[~rows].mean(0)
        best = np.full(len(tested), -np.inf)
        for _, basis in places:
            train = basis[~rows].astype(np.float64)
            weights = np.linalg.lstsq(train, centred, rcond=None)[0]
            gain = np.square(train @ weights).sum(0)
            predictions = basis[rows] @ weights
            better = gain > best
            scores[np.ix_(rows, better)] = predictions[:, better] - predictions[:, better].mean(0)
            best = np.maximum(best, gain)
    return scores


def area(scores: NDArray[np.float64], positive: NDArray[np.bool_], groups: NDArray[np.int64] | None) -> Interval:
    """AUC with an interval that holds for all learners at once, so that the best of them may be shown.

    Args:
        scores: (N,) of one class, or (N, K): the mean of their areas.
        positive: of the same shape.
        groups: (N,) pictures that are not independent.
    """
    confidence = 1 - 0.05 / _LEARNERS_A_VIEW
    return auc_interval(scores, positive.astype(np.int64), groups=groups, confidence=confidence, method="logit")


def place_map(places: Sequence[tuple[int, Floats]], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One value a shown place as a map (GRID, GRID), NaN elsewhere."""
    plane = np.full(GRID * GRID, np.nan)
    plane[[cell for cell, _ in places]] = values
    return plane.reshape(GRID, GRID)


def _over_all_classes(statistics: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One statistic of all classes: the sum of theirs, each in standard deviations of its own."""
    table = np.stack(statistics)
    spread = np.maximum(table.std(1, keepdims=True), 1e-12)
    return np.asarray(((table - table.mean(1, keepdims=True)) / spread).sum(0))


def _place_shares(places: Sequence[tuple[int, Floats]], labels: Floats) -> NDArray[np.float64]:
    total = np.square(labels, dtype=np.float64).sum(0)
    return np.stack([np.square(basis.T @ labels, dtype=np.float64).sum(0) / total for _, basis in places])


def _centred(orders: NDArray[np.int64], label: int) -> list[Floats]:
    """Labellings of one class against the rest, (N, at most `_CHUNK`) each, centred."""
    parts = []
    for start in range(0, orders.shape[1], _CHUNK):
        part = (orders[:, start : start + _CHUNK] == label).astype(np.float32)
        parts.append(part - part.mean(0))
    return parts
