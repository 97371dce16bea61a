"""The learners against scikit-learn's and against what they are defined as."""

from __future__ import annotations

import numpy as np
import pytest

from torch_bgdebias.audit.learners import (
    HIDDEN,
    MOST_COMPONENTS,
    hidden_layer,
    hinged,
    label_folds,
    penalty_for,
    ridge_scores,
    single_scores,
    standardised,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def test_standardised_columns(random):
    table = random.standard_normal((50, 5)) * [1, 10, 0, 1e-3, 1] + 3
    table[4, 0] = np.nan
    table[7, 1] = 1e6
    features = standardised(table)
    assert features.shape == (50, 4)  # the constant one is gone
    np.testing.assert_allclose(features.mean(0), 0, atol=1e-6)
    assert np.abs(features).max() < 5
    assert abs(features[4, 0]) < 1e-6  # what is missing is at the mean


def test_many_columns_become_components(random):
    wide = random.standard_normal((300, MOST_COMPONENTS + 30))
    assert standardised(wide).shape == (300, MOST_COMPONENTS)
    assert standardised(np.full((9, 3), np.nan)).shape == (9, 0)


def test_ridge_is_scikit_learns(random):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features = standardised(random.standard_normal((40, 6)))
    target = (random.random((40, 2)) > 0.5).astype(np.float32)
    folds = label_folds(np.arange(40) % 2, np.arange(40), 4, 0)
    scores = ridge_scores(features, target, folds, 3.0)
    for fold in range(4):
        rows = folds == fold
        expected = linear_model.Ridge(3.0).fit(features[~rows], target[~rows]).predict(features[rows])
        np.testing.assert_allclose(scores[rows], expected - expected.mean(0), atol=1e-5)


def test_the_penalty_leaves_as_much_freedom_as_asked_for(random):
    features = standardised(random.standard_normal((60, 20)))
    penalty = penalty_for(features, 7.0)
    wide = features.astype(np.float64)
    assert np.trace(wide @ np.linalg.inv(wide.T @ wide + penalty * np.eye(20)) @ wide.T) == pytest.approx(7, rel=1e-3)


def test_the_single_feature_is_chosen_without_the_held_out_fold(random):
    features = standardised(random.standard_normal((60, 5)))
    target = (features[:, 2:3] < 0).astype(np.float32)
    folds = label_folds(target[:, 0].astype(int), np.arange(60), 3, 0)
    scores = single_scores(features, target, folds)[:, 0]
    assert np.corrcoef(scores, -features[:, 2])[0, 1] > 0.98
    noise = single_scores(features[:, [0, 1, 3, 4]], random.permutation(target), folds)
    assert abs(np.corrcoef(noise[:, 0], target[:, 0])[0, 1]) < 0.45


def test_a_hidden_layer_tells_what_a_line_does_not(random):
    features = standardised(random.standard_normal((400, 2)))
    target = (np.abs(features[:, :1]) > 0.7).astype(np.float32)
    folds = label_folds(target[:, 0].astype(int), np.arange(400), 4, 0)
    layer = hidden_layer(features, 0)
    assert layer.shape[1] <= HIDDEN
    assert (hidden_layer(features, 0) == layer).all()
    for table, least, most in ((features, -0.3, 0.3), (layer, 0.6, 1.0)):
        scores = ridge_scores(table, target, folds, penalty_for(table, 20))
        assert least < np.corrcoef(scores[:, 0], target[:, 0])[0, 1] < most


def test_hinges_begin_one_deviation_off():
    features = standardised(np.arange(41.0)[:, None])
    low = hinged(features)[:, 2]
    assert (np.diff(low[:8]) < 0).all()
    assert (np.diff(low[12:]) == 0).all()
