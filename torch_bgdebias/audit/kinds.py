"""Clusters of similar pictures, made without labels, and how similar every picture is to each cluster."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy

from torch_bgdebias.audit.learners import Floats

__all__ = ["group_likeness"]

#: pictures of which groups are made, the others are compared with these; drawn without using labels
_MOST = 2000
#: a group has no fewer pictures than this, nor than this share, and no more than that share
_LEAST, _LEAST_SHARE, _MOST_SHARE = 8, 0.01, 0.3
#: principal components in which groups are made, and in which likeness is measured
_TREE, _COMPONENTS = 15, 30


def group_likeness(features: Floats) -> Floats:
    """How like every group each picture is, (N, G), standardised: a coordinate along each group's mean.

    Groups are the branches of a tree that Ward's method makes (1963). Along a group's mean, where what all pictures
    vary in counts for less (components are scaled by their shrunk standard deviations), pictures of its kind stand
    out, whether or not the group holds all of them.

    Args:
        features: (N, d) standardised.
    """
    vectors, singular, _ = np.linalg.svd(features.astype(np.float64), full_matrices=False)
    singular = singular[:_COMPONENTS]
    vectors = vectors[:, : len(singular)]
    variances = np.square(singular)
    scaled = vectors * np.sqrt(variances / np.maximum(variances + variances.mean(), 1e-12))
    rows = np.arange(len(features))
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(0).choice(len(features), _MOST, replace=False))
    means = [scaled[rows[members]].mean(0) for members in _branches((vectors * np.sqrt(singular))[rows, :_TREE])]
    if not means:
        return np.zeros((len(features), 0), np.float32)
    likeness = scaled @ np.stack(means, 1)
    likeness -= likeness.mean(0)
    spread = likeness.std(0)
    varying = spread > 1e-12
    return np.ascontiguousarray(likeness[:, varying] / spread[varying], np.float32)


def _branches(points: np.ndarray) -> list[list[int]]:
    """The members of every branch of the tree that is neither too small nor too large."""
    count = len(points)
    if count < 2 * _LEAST:
        return []
    smallest, largest = max(_LEAST, _LEAST_SHARE * count), _MOST_SHARE * count
    members: list[list[int]] = [[row] for row in range(count)]
    branches = []
    for first, second, _, size in hierarchy.linkage(points, "ward"):
        joined = members[int(first)] + members[int(second)] if size <= largest else []
        members.append(joined)
        if smallest <= size <= largest:
            branches.append(joined)
    return branches
