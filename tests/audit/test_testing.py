"""Tests of views of which a learner has nothing to learn from."""

from __future__ import annotations

import numpy as np

from torch_bgdebias.audit import testing
from torch_bgdebias.audit.cues import View


def test_few_pictures_make_no_groups_and_are_tested_by_the_rest():
    """A folder of twenty small pictures ended with numpy's word of a reduction that has no identity."""
    features = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 15)))[0].astype(np.float32) * 4
    view = View("kinds", "patches", features)
    assert set(testing.tables_of(view, 0)) == {"linear", "network"}
    orders = np.stack([np.random.default_rng(i).permutation(np.arange(16) % 2) for i in range(40)], 1)
    outcome = testing.test_everything([view], [], orders, [1], seed=0, level=0.05)
    assert {one.learner for one in outcome.tests} == {"linear", "network"}
