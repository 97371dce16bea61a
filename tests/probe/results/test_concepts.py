"""Concept tables in words."""

from __future__ import annotations

import pytest

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.results.concepts import ConceptBackground, ConceptFit, ConceptTable


@pytest.mark.parametrize(("pairs", "more"), [(4, None), (5, None), (6, "and 1 more"), (8, "and 3 more")])
def test_five_biased_pairs_are_listed_and_the_others_counted(pairs, more):
    before, after, loss = Interval(0.6, 0.5, 0.7, 9), Interval(0.3, 0.2, 0.4, 9), Interval(-0.3, -0.4, -0.2, 9)
    rows = [ConceptBackground(f"part {i}", "beach", after, before, loss, 0.5, 0.001, 0.004) for i in range(pairs)]
    table = ConceptTable("layer3", "net2vec", rows, [ConceptFit("original", before, after, {})])
    first, *lines = table.summary().splitlines()
    assert f"{pairs} of {pairs} (concept, background) pairs lose" in first
    listed = [line for line in lines if "IoU 0.60 -> 0.30, p = 0.004" in line]
    assert len(listed) == min(pairs, 5)
    assert [line.strip() for line in lines[len(listed) :]] == ([more] if more else [])
