"""Sensitivity, F1, balanced accuracy, calibration: values of scikit-learn and torchmetrics, intervals by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from torch_bgdebias.metrics import (
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    f1_score,
    sensitivity_at,
)

RNG = np.random.default_rng(0)
LABEL = RNG.choice(4, 300, p=[0.5, 0.3, 0.15, 0.05])
SAID = np.where(RNG.random(300) < 0.7, LABEL, RNG.integers(0, 4, 300))


def test_counts_and_means_are_scikit_learns() -> None:
    np.testing.assert_array_equal(confusion_matrix(LABEL, SAID, 4), sk.confusion_matrix(LABEL, SAID))
    interval = balanced_accuracy(LABEL, SAID)
    assert interval.value == pytest.approx(sk.balanced_accuracy_score(LABEL, SAID))
    assert interval.low < interval.value < interval.high
    for k in range(4):
        score = f1_score(k == LABEL, k == SAID)
        assert score.value == pytest.approx(sk.f1_score(k == LABEL, k == SAID))
        assert score.low < score.value < score.high


def test_images_without_an_answer_are_left_out() -> None:
    label, said = np.r_[LABEL, 0, -1], np.r_[SAID, -1, 0]
    np.testing.assert_array_equal(confusion_matrix(label, said, 4), confusion_matrix(LABEL, SAID, 4))
    assert balanced_accuracy(label, said) == balanced_accuracy(LABEL, SAID)


@pytest.mark.parametrize("specificity", [0.5, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("ties", [True, False])
def test_sensitivity_at_a_specificity_is_read_off_the_curve(specificity: float, ties: bool) -> None:
    rng = np.random.default_rng(5)
    truth = rng.random(150) < 0.4
    scores = truth + rng.normal(size=150)
    scores = scores.round(1) if ties else scores
    false, true, _ = sk.roc_curve(truth, scores, drop_intermediate=False)
    expected = true[false <= 1 - specificity + 1e-12].max()
    interval = sensitivity_at(scores, truth, specificity=specificity)
    assert interval.value == pytest.approx(expected)
    assert interval.low <= interval.value <= interval.high


def test_the_interval_of_a_sensitivity_holds() -> None:
    """True sensitivity at specificity 0.9 of two normal distributions one and a half apart."""
    from scipy import stats

    rng, truth = np.random.default_rng(6), np.r_[np.ones(60, bool), np.zeros(120, bool)]
    exact = stats.norm.sf(stats.norm.ppf(0.9) - 1.5)
    ends = [sensitivity_at(1.5 * truth + rng.normal(size=180), truth, specificity=0.9) for _ in range(400)]
    held = np.mean([end.low <= exact <= end.high for end in ends])
    assert held >= 0.95 - 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.mean([end.high - end.low for end in ends]) < 0.6
    few = sensitivity_at(np.arange(10.0), np.arange(10) >= 5, specificity=0.95)
    assert (few.value, few.low) == (1.0, 0.0)  # five negatives do not fix a threshold at 95 %


def test_the_intervals_of_f1_and_balanced_accuracy_hold() -> None:
    rng, held_f1, held_mean, times = np.random.default_rng(7), 0, 0, 400
    shares, right = np.array([0.6, 0.3, 0.1]), np.array([0.95, 0.8, 0.7])
    joint = shares * right
    said_0 = joint[0] + (shares[1] * 0.2 + shares[2] * 0.3) / 2
    true_f1 = 2 * joint[0] / (shares[0] + said_0)
    for _ in range(times):
        label = rng.choice(3, 120, p=shares)
        wrong = (label + rng.integers(1, 3, 120)) % 3
        said = np.where(rng.random(120) < right[label], label, wrong)
        score, mean = f1_score(label == 0, said == 0), balanced_accuracy(label, said)
        held_f1 += score.low <= true_f1 <= score.high
        held_mean += mean.low <= right.mean() <= mean.high
    least = 0.95 - 3 * math.sqrt(0.05 * 0.95 / times)
    assert held_f1 / times >= least
    assert held_mean / times >= least


def test_calibration_is_torchmetrics() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(500, 5), torch.randint(0, 5, (500,))
    shares = logits.softmax(1)
    confidence, said = shares.max(1)
    expected = MulticlassCalibrationError(5, n_bins=15, norm="l1")(shares, label)
    error = calibration_error(confidence.numpy(), (said == label).numpy())
    assert error.error == pytest.approx(float(expected), abs=1e-6)
    p, there = torch.rand(400), torch.rand(400) < 0.3
    expected = BinaryCalibrationError(n_bins=10, norm="l1")(p, there.long())
    assert calibration_error(p.numpy(), there.numpy(), bins=10).error == pytest.approx(float(expected), abs=1e-6)


def test_a_calibrated_model_shows_the_error_of_chance() -> None:
    rng, shown = np.random.default_rng(8), []
    p = rng.beta(4, 1, 300)
    for _ in range(300):
        shown.append(calibration_error(p, rng.random(300) < p).error)
    error = calibration_error(p, rng.random(300) < p)
    assert error.by_chance == pytest.approx(np.mean(shown), rel=0.1)
    assert calibration_error(np.full(300, 0.99), np.zeros(300)).error == pytest.approx(0.99)


def test_nothing_and_nonsense() -> None:
    assert math.isnan(balanced_accuracy([-1], [0]).value)
    assert math.isnan(f1_score([0, 0], [0, 0]).value)
    assert math.isnan(sensitivity_at([0.1], [1]).value)
    assert math.isnan(calibration_error([np.nan], [1]).error)
    with pytest.raises(ValueError, match=r"answers: expected shape \(2,\) as labels"):
        confusion_matrix([0, 1], [0], 2)
    with pytest.raises(ValueError, match="labels, answers: expected classes below 2, got 3"):
        confusion_matrix([0, 3], [0, 1], 2)
    with pytest.raises(ValueError, match=r"confidence: expected probabilities in \[0, 1\], got \[2, 2\]"):
        calibration_error([2.0], [1])
    with pytest.raises(ValueError, match=r"specificity: expected in \[0, 1\], got 95"):
        sensitivity_at([0.1, 0.2], [0, 1], specificity=95)


def test_the_last_two_bins_are_apart():
    """0.95 that is right and 0.85 that is wrong do not make up for each other."""
    assert calibration_error([0.95, 0.85], [1, 0], bins=10).error == pytest.approx((0.05 + 0.85) / 2)
    assert calibration_error([0.05, 0.15], [0, 1], bins=10).error == pytest.approx((0.05 + 0.85) / 2)
