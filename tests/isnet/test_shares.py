"""Shares of relevance on the foreground, against a loop and the metric of the same name."""

from __future__ import annotations

import math

import pytest
import torch

from torch_bgdebias import metrics
from torch_bgdebias.isnet.shares import foreground_share, pixel_ratio


def test_shares_are_those_of_a_loop():
    g = torch.Generator().manual_seed(0)
    relevance = torch.randn(4, 3, 2, 5, 6, generator=g)
    mask, void = torch.rand(4, 1, 5, 6, generator=g), (torch.rand(4, 1, 5, 6, generator=g) < 0.2).float()
    for size_of, share in (
        (lambda r: r.abs().sum(0), foreground_share),
        (lambda r: r.sum(0).clamp(min=0), pixel_ratio),
    ):
        expected = []
        for r, m, v in zip(relevance, mask, void, strict=True):
            of_maps = []
            for heatmap in r:
                size = size_of(heatmap) * (1 - v[0])
                of_maps.append(float((size * torch.minimum(m[0], 1 - v[0])).sum() / size.sum()))
            expected.append(sum(of_maps) / len(of_maps))
        assert share(relevance, mask, void).tolist() == pytest.approx(expected, abs=1e-6)


def test_of_one_heatmap_it_is_the_metric_of_that_name():
    g = torch.Generator().manual_seed(1)
    relevance, mask = torch.randn(3, 1, 3, 4, 4, generator=g), (torch.rand(3, 1, 4, 4, generator=g) < 0.5).float()
    torch.testing.assert_close(pixel_ratio(relevance, mask), metrics.pixel_ratio(relevance[:, 0], mask))


def test_no_relevance_has_no_share():
    relevance, mask = torch.zeros(2, 2, 1, 3, 3), torch.ones(2, 1, 3, 3)
    relevance[1, 0, 0, 0, 0] = -2
    assert math.isnan(float(foreground_share(relevance, mask)[0]))
    assert float(foreground_share(relevance, mask)[1]) == 1, "of the one heatmap that has any"
    assert pixel_ratio(relevance, mask).isnan().all(), "nothing is positive"
