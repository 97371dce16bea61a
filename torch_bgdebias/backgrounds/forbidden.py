"""Backgrounds that some classes must not get, stored as pairs, and sampling that excludes them on the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.sampling import ClassOrder, draw_outside

__all__ = ["ForbiddenDraws", "ForbiddenPairs"]


class ForbiddenPairs(NamedTuple):
    """Which foreground class must not stand in front of which image: one entry a pair, on the host, sorted by image.

    A classifier that looks at its k best classes makes at most k pairs an image and foreground class, so this stays
    small where a table of classes x images would not.

    Args:
        labels: (G,) int64, the foreground classes that have a list, ascending.
        rows: (M,) int64, of each pair the place of its foreground class in ``labels``.
        images: (M,) int64, of each pair the image's position, ascending.
    """

    labels: Tensor
    rows: Tensor
    images: Tensor

    @classmethod
    def of(cls, table: dict[int, Tensor]) -> ForbiddenPairs:
        """From a bool (N,) for every foreground class, true where the image is forbidden."""
        labels = sorted(table)
        pairs = torch.stack([table[label] for label in labels], dim=1).nonzero()
        return cls(torch.tensor(labels), pairs[:, 1].contiguous(), pairs[:, 0].contiguous())

    def select(self, chosen: Tensor) -> ForbiddenPairs:
        """The pairs of the images at ``chosen`` (n,), which then have the positions 0, 1, ..."""
        start = torch.searchsorted(self.images, chosen)
        count = torch.searchsorted(self.images, chosen, right=True) - start
        images = torch.repeat_interleave(torch.arange(len(chosen)), count)
        within = torch.arange(len(images)) - torch.repeat_interleave(count.cumsum(0) - count, count)
        return ForbiddenPairs(self.labels, self.rows[torch.repeat_interleave(start, count) + within], images)

    def joined(self, other: ForbiddenPairs) -> ForbiddenPairs:
        """Both kinds of pairs, for the same images."""
        labels = torch.unique(torch.cat([self.labels, other.labels]))
        rows = torch.cat([torch.searchsorted(labels, operand.labels[operand.rows]) for operand in (self, other)])
        images = torch.cat([self.images, other.images])
        pairs = torch.unique(torch.stack([images, rows], dim=1), dim=0)
        return ForbiddenPairs(labels, pairs[:, 1].contiguous(), pairs[:, 0].contiguous())

    def table(self, label: Tensor, total: int) -> Tensor:
        """(B, total) bool on the labels' device: is an image forbidden to a foreground of class ``label`` (B,)?"""
        forbidden = torch.zeros(len(self.labels) + 1, total, dtype=torch.bool)
        forbidden[self.rows, self.images] = True
        forbidden, labels = forbidden.to(label.device), self.labels.to(label.device)
        row = torch.searchsorted(labels, label.contiguous())
        is_listed = labels[row.clamp(max=len(labels) - 1)] == label
        return forbidden[torch.where(is_listed, row, len(labels))]

    def counts(self) -> Tensor:
        """(G,) how many images each foreground class is kept from."""
        return torch.bincount(self.rows, minlength=len(self.labels))


class ForbiddenDraws(NamedTuple):
    """`ForbiddenPairs` laid out for drawing, on the bank's device.

    The positions that one class must not get are f_0 < f_1 < ...; the r-th admissible one is r + j, j the number of
    f_i - i that are at most r. One search finds j for a whole batch: the lists stand one after the other in a single
    ascending array, each shifted by its own multiple of N + 1.

    Args:
        total: N.
        labels: (G,) foreground classes with a list.
        bounds: (G + 2,) where each list begins in the arrays below; the last list is empty, for all other classes.
        positions: (M,) f_i + row * (N + 1), places in the order of the bank's labels.
        ranks: (M,) f_i - i + row * (N + 1).
    """

    total: int
    labels: Tensor
    bounds: Tensor
    positions: Tensor
    ranks: Tensor

    @classmethod
    def of(cls, pairs: ForbiddenPairs, order: Tensor | None, total: int, device: torch.device) -> ForbiddenDraws:
        """Lay out ``pairs`` of ``total`` images; ``order`` (N,) as in `ClassOrder`, ``None`` for the images' own."""
        position = pairs.images
        if order is not None:
            inverse = torch.empty(total, dtype=torch.int64)
            inverse[order.cpu()] = torch.arange(total)
            position = inverse[position]
        positions = (pairs.rows * (total + 1) + position).sort().values
        count = torch.cat([pairs.counts(), torch.zeros(1, dtype=torch.int64)])
        bounds = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
        nth = torch.arange(len(positions)) - torch.repeat_interleave(bounds[:-1], count)
        return cls(
            total, *(t.to(device, non_blocking=True) for t in (pairs.labels, bounds, positions, positions - nth))
        )

    def to(self, device: torch.device | str) -> ForbiddenDraws:
        """On another device."""
        return ForbiddenDraws(self.total, *(t.to(device) for t in self[1:]))

    def draw(
        self,
        foreground: Tensor,
        order: ClassOrder | None = None,
        exclude: Tensor | None = None,
        cells: int = 1,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, cells), uniform over those that neither the list of ``foreground`` nor ``exclude`` forbids.

        Args:
            foreground: (B,) int64, the foreground's class; one without a list may get every image.
            order: of the bank's labels, the one that this was laid out with.
            exclude: (B,) int64, a label that must not come; needs ``order``.
            cells: images a row, which differ where enough are admissible.
            generator: on the device.

        Returns:
            (B, cells) int64; -1 in rows in which nothing is admissible.
        """
        row = torch.searchsorted(self.labels, foreground.contiguous())
        is_listed = self.labels[row.clamp(max=len(self.labels) - 1)] == foreground
        row = torch.where(is_listed, row, len(self.labels))
        first, shift = self.bounds[row], row * (self.total + 1)
        size = self.bounds[row + 1] - first
        start = count = torch.zeros_like(first)
        if order is not None and exclude is not None:
            low, high = order.interval(exclude)
            start = low - (torch.searchsorted(self.positions, shift + low) - first)
            count = high - (torch.searchsorted(self.positions, shift + high) - first) - start
        rank = draw_outside(self.total - size, start, count, cells, generator=generator)
        rank_in_row = rank.clamp(min=0) + shift[:, None]
        passed = torch.searchsorted(self.ranks, rank_in_row, right=True) - first[:, None]
        position = torch.where(rank >= 0, rank + passed, 0)
        image = position if order is None else order.order[position]
        return torch.where(rank >= 0, image, -1)
