"""Bars to either side of 0."""

from __future__ import annotations

import math

import pytest

from torch_bgdebias.probe.page.bars import forest_bar, forest_scale
from torch_bgdebias.probe.results.measurement import Estimate

LOSS, GAIN = Estimate(0.4, 0.3, 0.6, 50), Estimate(-0.1, -0.2, 0.0, 50)


def test_gaps_of_both_signs_share_a_scale() -> None:
    scale = forest_scale([LOSS, None, GAIN, Estimate(math.nan, math.nan, math.nan, 0)])
    assert tuple(scale) == (-0.2, 0.6)
    loss, gain = (forest_bar(e, scale, 0, sure=True) for e in (LOSS, GAIN))
    assert loss.zero == gain.zero == 25.0
    assert (loss.left, loss.width, loss.interval) == (25.0, 50.0, (62.5, 37.5))
    assert (gain.left, gain.width) == (12.5, 12.5)  # a gap below 0 reaches to the left
    assert gain.interval == (0.0, 25.0)


def test_without_an_interval_there_is_a_bar_alone() -> None:
    scale = forest_scale([Estimate(0.02, math.nan, math.nan, 1)])
    bar = forest_bar(Estimate(0.02, math.nan, math.nan, 1), scale, 3, sure=False)
    assert (bar.left, bar.width, bar.interval, bar.colour, bar.sure) == (0.0, pytest.approx(20.0), None, 3, False)


def test_nothing_known_still_has_a_scale() -> None:
    assert tuple(forest_scale([None])) == (0.0, 0.1)
