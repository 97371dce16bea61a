"""Groups of pictures with similar heatmaps, ranked by how clearly they separate from the rest of their class.

SpRAy's idea (Lapuschkin and others, Nature Communications 10, 2019): a class whose pictures are recognised by an object
has heatmaps that vary without a gap; pictures that are recognised by something else, a mark in a corner, form a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._optional import require

__all__ = ["Cluster", "clusters_of", "place_of", "separation"]

#: groups into which a class is cut, one cut after the other; every group of every cut is a candidate
_CUTS = (2, 3, 4, 6, 8)
#: a group is no smaller than this many pictures, or than this share of its class
_LEAST, _LEAST_SHARE = 8, 0.02
#: and no larger than this share: of two halves the smaller one is the odd one
_MOST_SHARE = 0.5
_COMPONENTS = 20
#: two groups of one class that share this much of their pictures are one
_SAME = 0.5


@dataclass(frozen=True)
class Cluster:
    """A group of pictures of one class.

    Attributes:
        label: the class.
        space: what was clustered: ``heatmaps`` or ``embeddings``.
        rows: pictures of the class: the first ``size`` form the group, the most typical first; then the rest.
        size: how many form it.
        suspicion: how far it stands apart from the rest of its class where it was clustered (`separation`); about 1.3
            where one normal variable is cut in two.
        place: (S, S) where the model looks in this group more than in the rest, adds up to 1.
    """

    label: int
    space: str
    rows: NDArray[np.int64]
    size: int
    suspicion: float
    place: NDArray[np.float64]


def clusters_of(
    maps: NDArray[np.float32], embeddings: NDArray[np.float32] | None, labels: NDArray[np.int64], *, seed: int
) -> list[Cluster]:
    """Every group of every class, the most suspicious first.

    Args:
        maps: (N, S, S) positive relevance of each picture for its class, adding up to 1.
        embeddings: (N, D), ``None`` without.
        labels: (N,).
        seed: of the clustering.

    Raises:
        ImportError: scikit-learn is not there (extra ``audit``).
    """
    cluster = require("sklearn.cluster", purpose="discover")
    groups: list[Cluster] = []
    spaces = {"heatmaps": np.sqrt(maps.reshape(len(maps), -1))}
    if embeddings is not None:
        length = np.linalg.norm(embeddings, axis=1, keepdims=True)
        spaces["embeddings"] = embeddings / np.maximum(length, 1e-12)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        for space, table in spaces.items():
            points = _components(table[members])
            distinct = len(np.unique(points.round(9), axis=0))
            for count in _CUTS:
                if len(members) < 2 * _LEAST * count or distinct < count:
                    break
                numbers = cluster.KMeans(count, n_init=3, random_state=seed).fit_predict(points)
                groups += _groups(int(label), space, members, numbers, points, maps)
    return _without_overlapping(sorted(groups, key=lambda group: -group.suspicion))


def separation(points: NDArray[np.float64], inside: NDArray[np.bool_]) -> tuple[float, NDArray[np.float64]]:
    """How far a group stands apart from the rest, and how typical of it each picture is (n,).

    The line through both means is drawn by one half of the pictures, and distance and spreads are those of the other
    half along it, so that a few pictures in many dimensions do not stand apart by chance.

    Args:
        points: (n, d).
        inside: (n,) the group.

    Returns:
        The distance of the means over the sum of both standard deviations, the mean of both halves; and projections.
    """
    half = np.zeros(len(points), bool)
    for rows in (np.flatnonzero(inside), np.flatnonzero(~inside)):
        half[rows[::2]] = True
    distances = []
    for fold in (half, ~half):
        line = points[fold & inside].mean(0) - points[fold & ~inside].mean(0)
        group, outside = points[~fold & inside] @ line, points[~fold & ~inside] @ line
        distances.append(float(group.mean() - outside.mean()) / max(float(group.std() + outside.std()), 1e-12))
    return float(np.mean(distances)), points @ (points[inside].mean(0) - points[~inside].mean(0))


def place_of(maps: NDArray[np.float32], inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Where (S, S) heatmaps (n, S, S) of the group have more than those of the rest; adds up to 1."""
    difference = np.maximum(maps[inside].mean(0, dtype=np.float64) - maps[~inside].mean(0, dtype=np.float64), 0)
    difference = np.where(difference >= 0.25 * difference.max(), difference, 0)  # the place itself, not all that varies
    return np.asarray(difference / max(float(difference.sum()), 1e-12))


def _groups(
    label: int,
    space: str,
    members: NDArray[np.int64],
    numbers: NDArray[np.int64],
    points: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> list[Cluster]:
    groups = []
    for number in np.unique(numbers):
        inside = numbers == number
        size = int(inside.sum())
        if size < max(_LEAST, _LEAST_SHARE * len(members)) or size > _MOST_SHARE * len(members):
            continue
        suspicion, typical = separation(points, inside)
        order = np.lexsort((-typical, ~inside))  # the group, then the rest of the class
        groups.append(Cluster(label, space, members[order], size, suspicion, place_of(maps[members], inside)))
    return groups


def _components(table: NDArray[np.float32]) -> NDArray[np.float64]:
    """Principal components, at most `_COMPONENTS`."""
    centred = table - table.mean(0, dtype=np.float64)
    vectors, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((vectors * singular)[:, :_COMPONENTS])


def _without_overlapping(groups: list[Cluster]) -> list[Cluster]:
    """Without groups that a more suspicious one of the class holds most of."""
    distinct: list[Cluster] = []
    for group in groups:
        members = set(group.rows[: group.size].tolist())
        overlaps = (
            len(members & set(earlier.rows[: earlier.size].tolist())) / min(group.size, earlier.size)
            for earlier in distinct
            if earlier.label == group.label
        )
        if all(overlap < _SAME for overlap in overlaps):
            distinct.append(group)
    return distinct
