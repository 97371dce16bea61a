"""Shuffles keep what they must keep; max-T against a slow second implementation, and its false alarms counted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.audit.learners import half_hat, label_folds, penalty_for, standardised
from torch_bgdebias.audit.permuting import adjusted_p_values, explained, levelled, shuffled_labels, strongest


def test_labels_stay_in_their_fold():
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    units = np.arange(60)
    folds = label_folds(labels, units, 5, 0)
    orders = shuffled_labels(labels, units, folds, 50, 0)
    assert (orders[:, 0] == labels).all()
    assert (orders[:, 1:] != labels[:, None]).any(0).all()
    for fold in range(5):
        counts = np.bincount(labels[folds == fold], minlength=3)
        assert all((np.bincount(column, minlength=3) == counts).all() for column in orders[folds == fold].T)
        assert (abs(counts - np.array([6, 4, 2])) <= 1).all()


def test_groups_change_labels_as_a_whole_and_mixed_ones_within():
    units = np.repeat(np.arange(12), 5)
    labels = np.repeat(np.arange(12) % 2, 5)
    labels[:5] = [0, 1, 0, 1, 1]  # one group of both classes
    folds = label_folds(labels, units, 4, 0)
    assert all(len(np.unique(folds[units == unit])) == 1 for unit in range(12))
    orders = shuffled_labels(labels, units, folds, 40, 0)
    assert (np.sort(orders[:5], 0) == np.sort(labels[:5])[:, None]).all()
    pure = orders[5:].reshape(11, 5, -1)
    assert (pure == pure[:, :1]).all()
    assert (pure[:, 0].sum(0) == labels[5::5].sum()).all()
    assert len({tuple(column) for column in orders.T}) > 20


def slow_step_down(statistics: np.ndarray) -> np.ndarray:
    """Westfall and Young's algorithm 4.1, over all pairs."""
    scaled = (statistics - statistics.mean(1, keepdims=True)) / statistics.std(1, keepdims=True)
    order = sorted(range(len(scaled)), key=lambda row: -scaled[row, 0])
    corrected, before = np.ones(len(scaled)), 0.0
    for rank, row in enumerate(order):
        rest = order[rank:]
        count = sum(scaled[rest, column].max() >= scaled[row, 0] - 1e-12 for column in range(scaled.shape[1]))
        before = max(before, count / scaled.shape[1])
        corrected[row] = before
    return corrected


def test_step_down_as_a_slow_implementation_has_it():
    statistics = np.random.default_rng(0).standard_normal((9, 80))
    statistics[2, 0] += 4
    statistics[5, 0] += 2
    corrected, z = adjusted_p_values(statistics)
    np.testing.assert_allclose(corrected, slow_step_down(statistics))
    assert corrected[2] == 1 / 80
    assert z.argmax() == 2


def test_a_statistic_that_never_changes_says_nothing():
    corrected, _ = adjusted_p_values(np.stack([np.ones(100), np.arange(100.0)]))
    assert corrected[0] == 1
    assert corrected[1] == 1


def test_false_alarms_over_data_sets_of_noise():
    """At level 0.1 in at most 10 % of 300 data sets, whatever the three statistics and however skewed the features."""
    alarms = 0
    for number in range(300):
        random = np.random.default_rng(number)
        features = standardised(random.exponential(size=(40, 6)) ** 2)
        labels = random.permutation(np.repeat([0, 1], 20))
        units = np.arange(40)
        folds = label_folds(labels, units, 4, number)
        orders = shuffled_labels(labels, units, folds, 59, number).astype(np.float32)
        centred = orders - orders.mean(0)
        rows = [
            levelled(strongest(features, centred)),
            explained(half_hat(features, penalty_for(features, 3)), centred),
        ]
        alarms += adjusted_p_values(np.stack(rows))[0].min() <= 0.1
    assert alarms <= stats.binom.ppf(0.999, 300, 0.1)
    assert alarms >= stats.binom.ppf(0.001, 300, 0.1)  # exact, so hardly fewer either


def test_explained_is_the_ridge_regressions_own_share():
    random = np.random.default_rng(1)
    features = standardised(random.standard_normal((30, 4)))
    labels = random.standard_normal((30, 3)).astype(np.float32)
    labels -= labels.mean(0)
    wide = features.astype(np.float64)
    hat = wide @ np.linalg.inv(wide.T @ wide + 2.5 * np.eye(4)) @ wide.T
    expected = np.cbrt(np.einsum("nm,nk,km->m", labels, hat, labels) / np.square(labels).sum(0))
    np.testing.assert_allclose(explained(half_hat(features, 2.5), labels), expected, rtol=1e-5)


def test_the_strongest_feature_is_the_largest_correlation():
    random = np.random.default_rng(2)
    features = standardised(random.standard_normal((50, 7)))
    labels = random.standard_normal((50, 2)).astype(np.float32)
    labels -= labels.mean(0)
    largest = [max(np.corrcoef(feature, label)[0, 1] ** 2 for feature in features.T) for label in labels.T]
    np.testing.assert_allclose(strongest(features, labels), 25 * np.array(largest), rtol=1e-3)


def test_maxima_of_gumbels_become_normal():
    drawn = np.random.default_rng(3).gumbel(5, 2, 20000)
    level = levelled(drawn)
    assert stats.kstest(level, "norm").statistic < 0.03
    assert (np.diff(level[np.argsort(drawn)]) >= 0).all()


@pytest.mark.parametrize("count", [2, 5])
def test_folds_are_even(count):
    folds = label_folds(np.arange(40) % 2, np.arange(40), count, 0)
    assert (np.bincount(folds) == 40 // count).all()
