"""Groups of pictures that a model looks at in a way of their own, ranked by how far they stand apart.

SpRAy's idea (Lapuschkin and others, Nature Communications 10, 2019): a class whose pictures are recognised by an object
has heatmaps that vary without a gap; pictures that are recognised by something else, a mark in a corner, form a group.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias._optional import require

__all__ = ["Cluster", "clusters_of", "standing_apart"]

#: groups into which a class is cut, one cut after the other; every group of every cut is a candidate
_CUTS = (2, 3, 4, 6, 8)
#: a group is no smaller than this many pictures, or than this share of its class
_LEAST, _LEAST_SHARE = 5, 0.02
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
        suspicion: how far it stands apart: the distance between it and the rest of its class along the places where
            the model looks at it alone, in standard deviations of both; about 1.3 where a class has no gap.
        place: (S, S) where the model looks in this group and not in the rest, adds up to 1.
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
        own = np.flatnonzero(labels == label)
        for space, table in spaces.items():
            points = _components(table[own])
            distinct = len(np.unique(points.round(9), axis=0))
            for count in _CUTS:
                if len(own) < 2 * _LEAST * count or distinct < count:
                    break
                numbers = cluster.KMeans(count, n_init=3, random_state=seed).fit_predict(points)
                groups += _groups(int(label), space, own, numbers, maps)
    return _distinct(sorted(groups, key=lambda group: -group.suspicion))


def standing_apart(
    inside: NDArray[np.bool_], maps: NDArray[np.float32]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Suspicion of a group within its class, its place, and how much each picture is looked at there (n,).

    Args:
        inside: (n,) the group.
        maps: (n, S, S) of the class.
    """
    apart = np.maximum(maps[inside].mean(0, dtype=np.float64) - maps[~inside].mean(0, dtype=np.float64), 0)
    apart = np.where(apart >= 0.25 * apart.max(), apart, 0)  # the place itself, not all that varies
    place = apart / max(float(apart.sum()), 1e-12)
    looked = np.einsum("nij,ij->n", np.sqrt(maps), place)
    spread = float(looked[inside].std() + looked[~inside].std())
    distance = float(looked[inside].mean() - looked[~inside].mean()) / max(spread, 1e-6)
    return distance, place, looked


def _groups(
    label: int, space: str, own: NDArray[np.int64], numbers: NDArray[np.int64], maps: NDArray[np.float32]
) -> list[Cluster]:
    groups = []
    for number in np.unique(numbers):
        inside = numbers == number
        size = int(inside.sum())
        if size < max(_LEAST, _LEAST_SHARE * len(own)) or size > 0.9 * len(own):
            continue
        suspicion, place, looked = standing_apart(inside, maps[own])
        order = np.lexsort((-looked, ~inside))  # the group, then the rest of the class
        groups.append(Cluster(label, space, own[order], size, suspicion, place))
    return groups


def _components(table: NDArray[np.float32]) -> NDArray[np.float64]:
    """Principal components, at most `_COMPONENTS`."""
    centred = table - table.mean(0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    return np.asarray((left * singular)[:, :_COMPONENTS])


def _distinct(groups: list[Cluster]) -> list[Cluster]:
    """Without groups that a more suspicious one of the class holds most of."""
    shown: list[Cluster] = []
    for group in groups:
        members = set(group.rows[: group.size].tolist())
        overlaps = (
            len(members & set(other.rows[: other.size].tolist())) / min(group.size, other.size)
            for other in shown
            if other.label == group.label
        )
        if all(overlap < _SAME for overlap in overlaps):
            shown.append(group)
    return shown
