"""A dendrogram of per-image concept vectors (LoCE): which branch each concept is, and how pure it is.

Source: Mikriukov et al., Local Concept Embeddings, 2024 (arXiv 2311.14435), hierarchical clustering of the vectors.
Deviation: no cut is chosen; every branch is looked at, and a concept is told by the branch that holds it best.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.cluster import hierarchy
from torch import Tensor

from torch_bgdebias.checks import check_count, check_option
from torch_bgdebias.concepts.populations import checked_vectors

__all__ = ["LINKAGES", "ConceptTree", "concept_tree"]

LINKAGES = ("ward", "average", "complete", "single")
#: distances of all pairs are held at once: 8 bytes for each
_MOST = 20_000


@dataclasses.dataclass(frozen=True)
class ConceptTree:
    """A dendrogram of N vectors of G concepts.

    Attributes:
        merges: (N - 1, 4) float64 as SciPy's ``linkage``: two branches, their distance, and how many vectors they hold
            together; branches 0 to N - 1 are the vectors, branch N + i is row i. ``scipy.cluster.hierarchy.dendrogram``
            draws it.
        order: (N,) the vectors from left to right.
        branch: (G,) the branch that holds each concept best; -1 for a concept without vectors.
        separation: (G,) overlap (intersection over union) of that branch and the concept's vectors: 1 where a branch
            holds all of them and nothing else; NaN without vectors.
        floor: (G,) the overlap of the whole tree with the concept, its share of all vectors: no separation is below it.
    """

    merges: Tensor
    order: Tensor
    branch: Tensor
    separation: Tensor
    floor: Tensor

    def clusters(self, count: int) -> Tensor:
        """(N,) numbers from 0 of at most ``count`` clusters, where the tree is cut.

        Raises:
            ValueError: fewer than one cluster, or more than vectors.
        """
        check_count(count, name="count")
        vectors = len(self.merges) + 1
        if count > vectors:
            raise ValueError(f"count: expected at most the {vectors} vectors, got {count}")
        numbers = hierarchy.fcluster(self.merges.numpy(), count, criterion="maxclust")
        return torch.from_numpy(np.unique(numbers, return_inverse=True)[1].astype(np.int64))


def concept_tree(vectors: Tensor, labels: Tensor, *, linkage: str = "ward") -> ConceptTree:
    """Cluster per-image vectors hierarchically, and find the branch of each concept.

    Args:
        vectors: (N, C), one an image, as `torch_bgdebias.concepts.fit_loce` gives them; N from 2 to 20,000. They are
            brought to length 1, so that distances are those of directions.
        labels: (N,) their concepts, from 0.
        linkage: how far two branches are apart: ``"ward"``, ``"average"``, ``"complete"`` or ``"single"``.

    Raises:
        ValueError: other shapes, vectors of length 0, fewer than 2 or too many, an unknown linkage.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> tree = concept_tree(vectors, torch.tensor([0, 0, 1, 1]))
        >>> tree.separation, tree.clusters(2)
        (tensor([1., 1.]), tensor([0, 0, 1, 1]))
    """
    check_option(linkage, LINKAGES, name="linkage")
    unit, label = checked_vectors(vectors, labels)
    if not 2 <= len(unit) <= _MOST:
        raise ValueError(f"vectors: expected 2 to {_MOST:,} of them, got {len(unit):,}; take a sample of more")
    merges = hierarchy.linkage(unit.double().numpy(), method=linkage)
    count = int(label.max()) + 1
    counts = np.zeros((2 * len(unit) - 1, count))
    counts[np.arange(len(unit)), label.numpy()] = 1
    for row, (left, right) in enumerate(merges[:, :2].astype(np.int64), start=len(unit)):
        counts[row] = counts[left] + counts[right]
    sizes, totals = counts.sum(1, keepdims=True), counts[-1]
    overlaps = counts / np.maximum(sizes + totals - counts, 1)
    best = overlaps.argmax(0)
    there = totals > 0
    return ConceptTree(
        merges=torch.from_numpy(merges),
        order=torch.from_numpy(hierarchy.leaves_list(merges).astype(np.int64)),
        branch=torch.from_numpy(np.where(there, best, -1)),
        separation=torch.from_numpy(np.where(there, overlaps.max(0), np.nan)).float(),
        floor=torch.from_numpy(np.where(there, totals / len(unit), np.nan)).float(),
    )
