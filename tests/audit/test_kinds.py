"""Groups of alike pictures: a kind that one class has more of is found, and nothing where classes know no kinds."""

from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.audit.kinds import group_likeness
from torch_bgdebias.audit.learners import standardised
from torch_bgdebias.audit.permuting import strongest


def kinds(random, numbers):
    """Features (N, 40) of pictures of ten kinds, which overlap."""
    means = 1.5 * np.random.default_rng(7).standard_normal((10, 40))
    return standardised(means[numbers] + random.standard_normal((len(numbers), 40)) * 2.0)


def test_a_kind_in_a_fifth_of_one_class():
    random = np.random.default_rng(0)
    numbers = np.concatenate([random.integers(0, 9, 200), random.integers(0, 9, 160), np.full(40, 9)])
    labels = np.repeat([-0.5, 0.5], 200).astype(np.float32)
    likeness = group_likeness(kinds(random, numbers))
    orders = np.stack([labels, *(random.permutation(labels) for _ in range(199))], 1)
    statistic = strongest(likeness, orders)
    assert statistic[0] > statistic[1:].max(), "p = 1 / 200, the least that there is"
    best = np.abs(likeness.T @ labels).argmax()
    column = likeness[:, best] * np.sign(likeness[:, best] @ labels)
    assert np.argsort(-column)[:20].min() >= 360, "the pictures of that kind lead"


def test_the_level_holds():
    random = np.random.default_rng(1)
    likeness = group_likeness(kinds(random, random.integers(0, 10, 120)))
    labels = np.repeat([-0.5, 0.5], 60).astype(np.float32)
    orders = np.stack([random.permutation(labels) for _ in range(2000)], 1)
    statistics = strongest(likeness, orders)
    ranks = [(statistics[start : start + 100] >= statistics[start]).mean() for start in range(0, 2000, 100)]
    assert np.mean(np.array(ranks) <= 0.05) <= 0.2
    assert 0.3 < np.mean(ranks) < 0.7


def test_form_and_what_it_does_not_depend_on():
    random = np.random.default_rng(2)
    features = kinds(random, random.integers(0, 10, 150))
    likeness = group_likeness(features)
    assert likeness.dtype == np.float32
    np.testing.assert_allclose(likeness.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(likeness.std(0), 1, atol=1e-4)
    order = random.permutation(150)
    again = group_likeness(features[order])
    products = np.abs(again.T @ likeness[order]) / 150
    np.testing.assert_allclose(products.max(1), 1, atol=1e-3, err_msg="the same groups in any order of pictures")


@pytest.mark.parametrize("count", [4, 15])
def test_few_pictures_make_no_groups(count):
    assert group_likeness(np.eye(count, 6, dtype=np.float32)).shape == (count, 0)


def test_many_pictures_are_compared_with_groups_of_some():
    random = np.random.default_rng(3)
    numbers = random.integers(0, 10, 2300)
    likeness = group_likeness(kinds(random, numbers))
    assert likeness.shape[0] == 2300
    assert np.isfinite(likeness).all()
    between = np.stack([likeness[numbers == kind].mean(0) for kind in range(10)])
    assert np.abs(between).max(0).min() > 0.3, "every group is of some kind"
