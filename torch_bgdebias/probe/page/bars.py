"""Bars in tables: a gap with its interval on either side of 0, all rows on one scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from torch_bgdebias.probe.results.measurement import Estimate
from torch_bgdebias.probe.results.spelling import interval_of, is_known

__all__ = ["ForestBar", "Scale", "forest_bar", "forest_scale"]


class Scale(NamedTuple):
    """The gaps at the left and the right end of every bar of a table, in fractions; 0 lies between."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, in percent of the width."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 1)


@dataclass(frozen=True)
class ForestBar:
    """A bar, in percent of its track.

    Attributes:
        colour: of the model.
        zero: where 0 is.
        left: where the bar begins.
        width: how long it is.
        interval: left end and width of the interval; ``None`` without one.
        sure: whether it is more than chance.
    """

    colour: int
    zero: float
    left: float
    width: float
    interval: tuple[float, float] | None
    sure: bool


def forest_scale(estimates: Iterable[Estimate | None]) -> Scale:
    """One scale for all rows, from the ends of their intervals, at least 10 points wide."""
    extremes = [value for e in estimates if is_known(e) for value in (e.value, *(interval_of(e) or ()))]
    low, high = min([0.0, *extremes]), max([0.0, *extremes])
    return Scale(low, max(high, low + 0.1))


def forest_bar(estimate: Estimate, scale: Scale, colour: int, *, sure: bool) -> ForestBar:
    """The bar of a known gap."""
    zero, value, ends = scale.at(0.0), scale.at(estimate.value), interval_of(estimate)
    between = None if ends is None else (scale.at(ends[0]), round(scale.at(ends[1]) - scale.at(ends[0]), 1))
    return ForestBar(colour, zero, min(zero, value), round(abs(value - zero), 1), between, sure)
