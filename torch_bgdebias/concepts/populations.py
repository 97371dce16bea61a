"""Per-image concept vectors (LoCE) as a population: how well concepts separate, and which images are outliers.

Source: Mikriukov et al., Local Concept Embeddings, 2024 (arXiv 2311.14435), sections on separation of concepts and
retrieval of outliers. Deviation: neighbours by cosine; the hierarchical clustering is in ``tree.py``.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.checks import check_count, check_finite, check_label, describe

__all__ = ["ConceptNeighbours", "checked_vectors", "concept_neighbours", "concept_outliers"]

#: similarities that are held at once
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class ConceptNeighbours:
    """The nearest neighbours among per-image concept vectors.

    Attributes:
        confusion: (G, G), row g: shares of the concepts among the nearest vectors of concept g's; rows add up to 1, NaN
            for a concept without vectors.
        separation: (G,) the diagonal: 1 where a concept's vectors have only their own as neighbours.
        chance: (G,) what the diagonal would be if neighbours were drawn at random.
    """

    confusion: Tensor
    separation: Tensor
    chance: Tensor


def concept_neighbours(vectors: Tensor, labels: Tensor, neighbours: int = 5) -> ConceptNeighbours:
    """How well per-image vectors separate their concepts, by nearest neighbours.

    Args:
        vectors: (N, C), one an image, as `torch_bgdebias.concepts.fit_loce` gives them.
        labels: (N,) their concepts, from 0.
        neighbours: how many nearest vectors (by cosine, without the vector itself) are looked at, below N.

    Raises:
        ValueError: other shapes, vectors of length 0, too few of them.

    Example:
        >>> vectors = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> concept_neighbours(vectors, torch.tensor([0, 0, 1, 1]), 1).separation
        tensor([1., 1.])
    """
    unit, label = _checked(vectors, labels, neighbours)
    if neighbours >= len(unit):
        raise ValueError(f"neighbours: expected fewer than the {len(unit)} vectors, got {neighbours}")
    count = int(label.max()) + 1
    table = torch.zeros(count, count, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(unit)), max(1, _CHUNK // len(unit))):
        similar = _cosines(unit, rows)
        nearest = label[similar.topk(neighbours, 1).indices]
        table.index_put_((label[rows, None].expand_as(nearest), nearest), table.new_ones(()), accumulate=True)
    sizes = torch.bincount(label, minlength=count).double()
    confusion = table / table.sum(1, keepdim=True)
    chance = torch.where(sizes > 0, (sizes - 1) / (len(unit) - 1), torch.nan)
    return ConceptNeighbours(confusion.float(), confusion.diagonal().float(), chance.float())


def concept_outliers(vectors: Tensor, labels: Tensor, neighbours: int = 5) -> Tensor:
    """How far each vector lies from its concept (N,): 1 minus the mean cosine to its nearest neighbours there.

    The largest are images to look at: wrong masks, wrong labels, or a concept that looks otherwise.

    Args:
        vectors: (N, C), one an image.
        labels: (N,) their concepts.
        neighbours: how many nearest vectors of the same concept are looked at; all where there are fewer.

    Returns:
        Tensor: float32 in [0, 2]; NaN where a concept has one vector alone.

    Raises:
        ValueError: other shapes, or vectors of length 0.
    """
    unit, label = _checked(vectors, labels, neighbours)
    scores = torch.full((len(unit),), torch.nan, dtype=torch.float32)
    for concept in torch.unique(label).tolist():
        members = (label == concept).nonzero()[:, 0]
        if len(members) < 2:
            continue
        of_concept = unit[members]
        for rows in torch.split(torch.arange(len(of_concept)), max(1, _CHUNK // len(of_concept))):
            nearest = _cosines(of_concept, rows).topk(min(neighbours, len(of_concept) - 1), 1).values
            scores[members[rows]] = 1 - nearest.mean(1)
    return scores


def _cosines(unit: Tensor, rows: Tensor) -> Tensor:
    """Cosines (n, N) of some vectors with all, of none with itself."""
    similar = unit[rows] @ unit.T
    similar[torch.arange(len(rows)), rows] = -torch.inf
    return similar


def _checked(vectors: Tensor, labels: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    unit, label = checked_vectors(vectors, labels)
    check_count(neighbours, name="neighbours")
    return unit, label


def checked_vectors(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Vectors (N, C) at length 1 and their concepts (N,), on the CPU.

    Raises:
        ValueError: other shapes, numbers that are not finite, concepts below 0, or vectors of length 0.
    """
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or not vectors.is_floating_point() or 0 in vectors.shape:
        raise ValueError(f"vectors: expected a float tensor (N, C), one row an image, got {describe(vectors)}")
    check_finite(vectors, name="vectors")
    label = check_label(labels, len(vectors), name="labels").cpu()
    if int(label.min()) < 0:
        raise ValueError(f"labels: expected concepts from 0, got {int(label.min())}")
    lengths = vectors.detach().float().cpu().norm(dim=1)
    if bool((lengths == 0).any()):
        raise ValueError("vectors: expected none of length 0, which has no direction to compare")
    return F.normalize(vectors.detach().float().cpu(), dim=1), label
