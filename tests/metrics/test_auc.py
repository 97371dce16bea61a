"""DeLong's area, interval and test: the paper's double sums, published figures, scikit-learn, simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from torch_bgdebias.metrics import auc_difference, auc_interval


def kernel(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def by_the_paper(columns: list[np.ndarray], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and their covariance, DeLong et al. (1988), equations 2 to 6, by loops over pairs."""
    x, y = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    m, n, k = len(x), len(y), len(columns)
    v10 = [[sum(kernel(c[i], c[j]) for j in y) / n for i in x] for c in columns]
    v01 = [[sum(kernel(c[i], c[j]) for i in x) / m for j in y] for c in columns]
    areas = [sum(v) / m for v in v10]
    s = np.zeros((k, k))
    for r in range(k):
        for q in range(k):
            s10 = sum((v10[r][i] - areas[r]) * (v10[q][i] - areas[q]) for i in range(m)) / (m - 1)
            s01 = sum((v01[r][j] - areas[r]) * (v01[q][j] - areas[q]) for j in range(n)) / (n - 1)
            s[r, q] = s10 / m + s01 / n
    return np.array(areas), s


def drawn(seed: int, n: int = 60, *, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < 0.4).astype(int)
    first, second = truth + rng.normal(size=n) * 1.3, 0.4 * truth + rng.normal(size=n)
    return (first.round(1), (0.5 * first + second).round(1), truth) if ties else (first, second, truth)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("ties", [True, False])
def test_area_error_and_test_are_those_of_the_paper(seed: int, ties: bool) -> None:
    first, second, truth = drawn(seed, ties=ties)
    areas, covariance = by_the_paper([first, second], truth)
    interval = auc_interval(first, truth)
    half = stats.norm.ppf(0.975) * math.sqrt(covariance[0, 0])
    assert interval.value == pytest.approx(areas[0], abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((areas[0] - half, min(1, areas[0] + half)), abs=1e-10)
    test = auc_difference(first, second, truth)
    error = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    assert test.interval.value == pytest.approx(areas[0] - areas[1], abs=1e-12)
    assert test.z == pytest.approx((areas[0] - areas[1]) / error, abs=1e-8)
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(test.z)), abs=1e-12)
    assert test.interval.high - test.interval.low == pytest.approx(2 * stats.norm.ppf(0.975) * error, abs=1e-10)


def test_hanley_and_mcneils_ct_images() -> None:
    """Radiology 143, 1982, table I; area, DeLong's error and interval as Stata's manual prints them ([R] roctab)."""
    normal, abnormal = (33, 6, 6, 11, 2), (3, 2, 2, 11, 33)
    ratings = np.r_[np.repeat(range(5), normal), np.repeat(range(5), abnormal)]
    interval = auc_interval(ratings, np.r_[np.zeros(58, int), np.ones(51, int)])
    assert round(interval.value, 4) == 0.8932
    assert (round(interval.low, 5), round(interval.high, 5)) == (0.83295, 0.95339)
    assert round((interval.high - interval.low) / (2 * stats.norm.ppf(0.975)), 4) == 0.0307


def test_areas_of_many_classes_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 200)
    scores = rng.normal(size=(200, 4)) + 1.5 * np.eye(4)[label]
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert auc_interval(shares, label).value == pytest.approx(roc_auc_score(label, shares, multi_class="ovr"))
    sets = (rng.random((200, 4)) < 0.3).astype(int)
    assert auc_interval(scores, sets).value == pytest.approx(roc_auc_score(sets, scores, average="macro"))
    sets[:, 2] = 0  # a label that nobody has takes no part
    present = [0, 1, 3]
    assert auc_interval(scores, sets).value == pytest.approx(roc_auc_score(sets[:, present], scores[:, present]))
    assert auc_interval(scores[:, :1], sets[:, :1]) == auc_interval(scores[:, 0], sets[:, 0])


def test_the_error_of_a_mean_area_is_that_of_many_drawn_anew() -> None:
    """Labels of one image are correlated: the error of their mean area against the spread of 400 data sets."""
    rng, values, errors = np.random.default_rng(1), [], []
    for _ in range(400):
        shared = rng.normal(size=80)
        sets = np.array([(shared + rng.normal(size=80) > 0.5) for _ in range(3)]).T.astype(int)
        scores = sets + 0.8 * shared[:, None] + rng.normal(size=(80, 3))
        interval = auc_interval(scores, sets)
        values.append(interval.value)
        errors.append((interval.high - interval.low) / (2 * stats.norm.ppf(0.975)))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


@pytest.mark.parametrize(("shift", "least"), [(1.0, 0.93), (2.5, 0.93)])
def test_the_logit_interval_holds(shift: float, least: float) -> None:
    rng, truth, held, plain = np.random.default_rng(2), np.r_[np.ones(30, int), np.zeros(40, int)], 0, 0
    area = stats.norm.cdf(shift / math.sqrt(2))
    for _ in range(600):
        scores = shift * truth + rng.normal(size=70)
        interval = auc_interval(scores, truth, method="logit")
        held += interval.low <= area <= interval.high
        plain += auc_interval(scores, truth).low <= area <= auc_interval(scores, truth).high
    assert held / 600 >= least
    if shift > 2:
        assert plain < held


def test_perfect_areas_have_the_interval_of_pairs() -> None:
    """All of 20 positives above all of 30 negatives: 20 disjoint pairs are right, at 0.025 ** (1 / 20) once in 40."""
    truth = np.r_[np.ones(20, int), np.zeros(30, int)]
    interval = auc_interval(truth + 0.0, truth)
    assert (interval.value, interval.high) == (1.0, 1.0)
    assert interval.low == pytest.approx(0.025 ** (1 / 20))
    assert auc_interval(-truth + 0.0, truth).high == pytest.approx(1 - 0.025 ** (1 / 20))
    same = auc_difference(truth + 0.0, 2.0 * truth, truth)
    assert (same.interval.value, same.p_value) == (0.0, 1.0)
    assert math.isnan(same.z)


def test_images_of_a_group_count_together() -> None:
    first, second, truth = drawn(3, ties=False)
    copies, groups = np.repeat(np.arange(60), 5), np.repeat(np.arange(60), 5)
    once = auc_interval(first, truth)
    five = auc_interval(first[copies], truth[copies], groups=groups)
    assert five.value == pytest.approx(once.value)
    assert five.high - five.low == pytest.approx(once.high - once.low, rel=0.05)
    apart = auc_interval(first[copies], truth[copies])
    assert apart.high - apart.low < 0.6 * (once.high - once.low)
    test = auc_difference(first[copies], second[copies], truth[copies], groups=groups)
    assert test.z == pytest.approx(auc_difference(first, second, truth).z, rel=0.05)


def test_what_there_is_no_area_of() -> None:
    assert math.isnan(auc_interval([0.1, 0.2], [1, 1]).value)
    assert math.isnan(auc_interval([0.1, 0.2], [0, 1]).low)
    assert auc_interval([0.1, np.nan, 0.2, 0.3, 0.4], [0, 1, 0, 1, 1]).n == 4
    with pytest.raises(ValueError, match=r"targets: expected 0 and 1 in shape \(2,\) as scores"):
        auc_interval([0.1, 0.2], [0, 2])
    with pytest.raises(ValueError, match=r"targets: expected classes in \[0, 1\], got \[0, 2\]"):
        auc_interval(np.zeros((2, 2)), [0, 2])
    with pytest.raises(ValueError, match="scores: expected finite numbers"):
        auc_interval([np.inf, 0.2], [0, 1])
    with pytest.raises(ValueError, match="method: expected one of 'delong', 'logit', got 'bootstrap'"):
        auc_interval([0.1, 0.2], [0, 1], method="bootstrap")
    with pytest.raises(ValueError, match="groups: expected 2 integers or strings"):
        auc_interval([0.1, 0.2], [0, 1], groups=[1])
    with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\), got 95"):
        auc_difference([0.1, 0.2], [0.1, 0.2], [0, 1], confidence=95)
    with pytest.raises(ValueError, match="targets: expected 0 and 1"):
        auc_difference([0.1, 0.2], [0.1], [0, 1])


def test_areas_of_one_do_not_differ_for_certain() -> None:
    """DeLong's variance of a full area is 0; what few images leave possible is not."""
    truth = np.repeat([0, 1], 15)
    perfect, worse = truth + 0.0, np.where(np.arange(30) == 29, -1.0, truth)
    alone = auc_interval(perfect, truth)
    same = auc_difference(perfect, 2 * perfect, truth)
    assert same.interval.value == 0
    assert same.p_value == 1
    assert same.interval.high == pytest.approx(1 - alone.low)
    assert same.interval.low == pytest.approx(alone.low - 1)
    less = auc_difference(perfect, worse, truth).interval
    assert less.low < 0 < less.high
    assert (
        less.high - less.value
        >= auc_interval(worse, truth, method="logit").value - auc_interval(worse, truth, method="logit").low
    )
    upside_down = auc_difference(perfect, -perfect, truth)
    assert upside_down.interval.value == 1
    assert 0 < upside_down.p_value < 1e-3
    assert 0 < upside_down.interval.low < 1


def test_differences_near_one_are_covered() -> None:
    random, inside, trials = np.random.default_rng(0), 0, 400
    truth = np.repeat([0, 1], 30)
    for _ in range(trials):
        signal = 3.5 * truth + random.normal(size=60)
        first, second = (signal + 0.5 * random.normal(size=60) for _ in range(2))  # the same area, close to 1
        interval = auc_difference(first, second, truth).interval
        inside += interval.low <= 0 <= interval.high
    assert inside / trials > 0.94


def test_no_difference_of_areas_is_beyond_one() -> None:
    truth = np.repeat([0, 1], 6)
    almost = np.where(np.arange(12) % 6 == 0, truth, 1 - truth).astype(float)
    interval = auc_difference(truth + 0.0, almost, truth).interval
    assert 0.5 < interval.value < 1
    assert interval.high == 1
    other = auc_difference(almost, truth + 0.0, truth).interval
    assert (other.low, other.value) == (-1, -interval.value)
