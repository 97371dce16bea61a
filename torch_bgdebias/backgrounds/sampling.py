"""Uniform sampling of admissible backgrounds as tensor operations, without loops or host synchronisation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["ClassOrder", "draw_outside", "uniform_below"]


class ClassOrder(NamedTuple):
    """Labels sorted once, so that every class is one interval and leaving a class out is plain arithmetic.

    Args:
        order: (N,) int64, positions sorted by label.
        sorted: (N,) int64, the labels in that order.
    """

    order: Tensor
    sorted: Tensor

    @classmethod
    def of(cls, labels: Tensor) -> ClassOrder:
        """Sort ``labels`` (N,)."""
        values, order = torch.sort(labels, stable=True)
        return cls(order, values)

    def interval(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Where each of the labels (B,) begins and ends in ``order``; an empty interval for one that is not there."""
        label = label.contiguous()
        return torch.searchsorted(self.sorted, label), torch.searchsorted(self.sorted, label, right=True)

    def draw(self, exclude: Tensor, cells: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
        """Positions (B, cells) whose label differs from ``exclude`` (B,), as `draw_outside` draws them."""
        start, end = self.interval(exclude)
        rank = draw_outside(len(self.sorted), start, end - start, cells, generator=generator)
        return torch.where(rank >= 0, self.order[rank.clamp(min=0)], -1)


def uniform_below(bound: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Integers uniform in [0, bound), elementwise; the bias of the remainder is below bound / 2^62."""
    draws = torch.randint(2**62, bound.shape, device=bound.device, generator=generator)
    return draws % bound.clamp(min=1)


def draw_outside(
    total: int | Tensor, start: Tensor, count: Tensor, cells: int = 1, *, generator: torch.Generator | None = None
) -> Tensor:
    """Numbers of [0, total) outside of [start, start + count), one row a sample.

    Every number of a row is uniform over the admissible ones. Numbers of one row are spread over them (systematic
    sampling: one from each of ``cells`` equal strata, all rotated by one random shift), so that they differ wherever
    at least ``cells`` are admissible.

    Args:
        total: how many numbers there are, for all rows or (B,) one a row.
        start: (B,) int64, first forbidden number.
        count: (B,) int64, how many are forbidden.
        cells: how many numbers a row.
        generator: on the device of ``start``.

    Returns:
        (B, cells) int64; -1 in rows in which nothing is admissible.
    """
    admissible = (total - count)[:, None]
    cell = torch.arange(cells, device=start.device)
    low = admissible * cell // cells
    width = admissible * (cell + 1) // cells - low
    shift = uniform_below(admissible, generator=generator)
    rank = (low + uniform_below(width, generator=generator) + shift) % admissible.clamp(min=1)
    number = rank + torch.where(rank >= start[:, None], count[:, None], 0)
    return torch.where(admissible > 0, number, -1)
