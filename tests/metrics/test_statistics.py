"""Intervals and tests against scipy, enumeration, known coverage and known limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.metrics import (
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)


def _ends(interval) -> tuple[float, float]:
    return interval.low, interval.high


def test_binary_interval_is_the_bootstraps() -> None:
    x = (np.random.default_rng(0).random(83) < 0.7).astype(float)
    reference = stats.bootstrap((x,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    # neighbouring values of k / n are the resolution of the drawn one
    np.testing.assert_allclose(_ends(bootstrap_mean(x)), reference, atol=1.01 / 83)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_mean_interval_agrees_with_scipy(confidence: float) -> None:
    x = np.random.default_rng(0).gamma(2.0, size=60)
    mine = bootstrap_mean(x, n_resamples=20000, confidence=confidence)
    settings = {"method": "percentile", "n_resamples": 20000, "rng": 1, "confidence_level": confidence}
    reference = stats.bootstrap((x,), np.mean, **settings).confidence_interval
    np.testing.assert_allclose(_ends(mine), reference, atol=0.02)
    assert mine.value == pytest.approx(x.mean())


@pytest.mark.parametrize("binary", [True, False])
def test_difference_is_paired(binary: bool) -> None:
    rng = np.random.default_rng(0)
    x = rng.random(200)
    y = np.clip(x - 0.2 + 0.05 * rng.normal(size=200), 0, 1)
    if binary:
        x, y = (x > 0.3).astype(float), (y > 0.3).astype(float)
    mine = bootstrap_mean_difference(x, y, n_resamples=20000)
    paired = stats.bootstrap((x - y,), np.mean, method="percentile", n_resamples=20000, rng=1).confidence_interval
    np.testing.assert_allclose(_ends(mine), paired, atol=0.006)
    unpaired = stats.bootstrap(
        (x, y), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis), method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    assert mine.high - mine.low < 0.8 * (unpaired.high - unpaired.low)


def test_difference_with_gaps_is_the_difference_of_the_means() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.random((2, 100)) < [[0.8], [0.4]]).astype(float)
    x[:10] = np.nan
    y[5:30] = np.nan
    mine = bootstrap_mean_difference(x, y, n_resamples=4000)
    assert mine.value == pytest.approx(np.nanmean(x) - np.nanmean(y))
    assert mine.n == 70
    means = []
    for _ in range(4000):  # the slow way: rows drawn with both values
        rows = rng.integers(0, 100, 100)
        means.append(np.nanmean(x[rows]) - np.nanmean(y[rows]))
    np.testing.assert_allclose(_ends(mine), np.quantile(means, [0.025, 0.975]), atol=0.015)


def test_coverage_of_the_gap_interval() -> None:
    rng, hits = np.random.default_rng(0), 0
    for trial in range(300):
        u = rng.random(120)
        x, y = (u < 0.8).astype(float), ((u < 0.8) & (rng.random(120) < 0.6)).astype(float)
        interval = bootstrap_mean_difference(x, y, n_resamples=400, seed=trial)
        hits += interval.low <= 0.8 - 0.48 <= interval.high
    assert 0.90 <= hits / 300 <= 0.985


def test_degenerate_intervals() -> None:
    empty, one, equal = bootstrap_mean([]), bootstrap_mean([0.25, math.nan]), bootstrap_mean([0.25] * 3)
    assert math.isnan(empty.value)
    assert empty.n == 0
    assert (one.value, one.n) == (0.25, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert (equal.value, equal.low, equal.high) == (0.25, 0.25, 0.25)
    assert math.isnan(bootstrap_mean_difference([], []).value)
    assert math.isnan(bootstrap_mean_difference([1.0, 1.0], [math.nan, math.nan]).value)
    single = bootstrap_mean_difference([1.0], [0.0])
    assert (single.value, single.n) == (1.0, 1)
    assert math.isnan(single.low)
    never_together = bootstrap_mean_difference([1.0, math.nan], [math.nan, 0.0])
    assert (never_together.value, never_together.n) == (1.0, 0)


def test_seeds_decide_and_global_state_is_untouched() -> None:
    x, y = np.random.default_rng(0).random((2, 100))
    state = np.random.get_state()[1].copy()  # noqa: NPY002 - it is the global state that is watched
    assert bootstrap_mean(x, seed=3) == bootstrap_mean(x, seed=3)
    assert bootstrap_mean(x, seed=3) != bootstrap_mean(x, seed=4)
    assert bootstrap_mean_difference(x, y, seed=3) != bootstrap_mean_difference(x, y, seed=4)
    assert paired_permutation_test(x, y, seed=3).p_value != paired_permutation_test(x, y, seed=4).p_value
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_permutation_of_right_and_wrong_is_mcnemar() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.random(50) < 0.8).astype(float), (rng.random(50) < 0.5).astype(float)
    only_x, only_y = int(((x == 1) & (y == 0)).sum()), int(((x == 0) & (y == 1)).sum())
    result = paired_permutation_test(x, y)
    assert result.exact
    assert result.p_value == pytest.approx(stats.binomtest(only_x, only_x + only_y).pvalue)
    assert result.difference == pytest.approx(x.mean() - y.mean())


def test_permutation_counts_all_sign_patterns() -> None:
    x, y = np.random.default_rng(1).normal(size=(2, 9)) + np.array([[0.7], [0.0]])
    d = x - y
    patterns = [abs(float(np.dot(s, d))) for s in itertools.product((-1, 1), repeat=9)]
    expected = np.mean([p >= abs(d.sum()) - 1e-12 for p in patterns])
    result = paired_permutation_test(x, y)
    assert result.exact
    assert result.p_value == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1, 3])
def test_permutation_of_whole_numbers_is_exact(scale: int) -> None:
    """Changes of a gap are 0, 1 or 2: all patterns of 13 against the convolution, then far below what drawing finds."""
    rng = np.random.default_rng(scale)
    for _ in range(5):
        d = scale * rng.integers(-2, 3, 13).astype(float)
        sums = np.array(list(itertools.product((-1, 1), repeat=13))) @ d
        test = paired_permutation_test(d, np.zeros(13))
        assert test.exact
        assert test.p_value == pytest.approx((np.abs(sums) >= abs(d.sum())).mean(), abs=1e-12)
    many = paired_permutation_test(np.repeat([1.0, 2.0], 30), np.zeros(60), n_resamples=10)
    assert many.exact
    assert many.p_value == pytest.approx(2.0**-59)
    too_many = paired_permutation_test(np.repeat([1.0, 2.0], 7000), np.zeros(14_000), n_resamples=10)
    assert not too_many.exact


def test_drawn_permutations_agree_with_scipy() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 60)) + np.array([[0.3], [0.0]])
    mine = paired_permutation_test(x, y, n_resamples=20000)
    reference = stats.permutation_test(
        (x, y), lambda a, b, axis=-1: (a - b).mean(axis), permutation_type="samples", n_resamples=20000, rng=5
    ).pvalue
    assert not mine.exact
    assert mine.p_value == pytest.approx(reference, abs=0.01)


def test_permutation_level_holds_when_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    p = [paired_permutation_test(*rng.normal(size=(2, 30)), n_resamples=199, seed=t).p_value for t in range(400)]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.085


def test_degenerate_permutations() -> None:
    assert math.isnan(paired_permutation_test([], []).p_value)
    assert paired_permutation_test([1.0, 0.0], [1.0, 0.0]).p_value == 1
    assert paired_permutation_test([1.0], [0.0]).p_value == 1
    assert paired_permutation_test([1.0, math.nan], [0.0, 1.0]).n == 1


@pytest.mark.parametrize(("method", "scipy_method"), [("benjamini-hochberg", "bh")])
def test_correction_agrees_with_scipy(method: str, scipy_method: str) -> None:
    p = np.random.default_rng(0).random(40) ** 3
    np.testing.assert_allclose(correct_p_values(p, method), stats.false_discovery_control(p, method=scipy_method))


def test_holm_step_by_step() -> None:
    p = np.random.default_rng(0).random(25) ** 3
    for level in (0.01, 0.05, 0.2):  # the procedure as Holm wrote it
        rejected = np.zeros(25, bool)
        for k, i in enumerate(np.argsort(p)):
            if p[i] > level / (25 - k):
                break
            rejected[i] = True
        np.testing.assert_array_equal(correct_p_values(p, "holm") <= level, rejected)


def test_correction_leaves_out_undefined_tests() -> None:
    corrected = correct_p_values([0.01, math.nan, 0.04])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
    assert corrected[2] == pytest.approx(0.04)
    assert correct_p_values([]).shape == (0,)
    assert np.isnan(correct_p_values([math.nan], "benjamini-hochberg")).all()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"values: expected one number an image \(N,\), got shape \(2, 1\)"):
        bootstrap_mean([[1.0], [2.0]])
    with pytest.raises(ValueError, match="values: expected finite numbers or NaN, got infinity"):
        bootstrap_mean([1.0, math.inf])
    with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\), got 95"):
        bootstrap_mean([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match="n_resamples: expected a whole number of at least 1, got 0"):
        bootstrap_mean([1.0, 2.0], n_resamples=0)
    with pytest.raises(ValueError, match="second: expected the same 2 images as first, got 3"):
        bootstrap_mean_difference([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="second: expected the same 2 images as first, got 3"):
        paired_permutation_test([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"p_values: expected values in \[0, 1\], got \[0.1, 1.5\]"):
        correct_p_values([0.1, 1.5])
    with pytest.raises(ValueError, match="method: expected one of 'holm', 'benjamini-hochberg', got 'bonferroni'"):
        correct_p_values([0.1], "bonferroni")


def test_copies_in_a_group_change_nothing() -> None:
    """A patient photographed five times is one patient: intervals and p are those of the patients."""
    rng = np.random.default_rng(0)
    x, y = rng.random(40), rng.random(40) + 0.1
    y[:3] = np.nan
    copies = np.repeat(np.arange(40), 5)
    many_x, many_y = x[copies], y[copies]
    one, many = bootstrap_mean(x), bootstrap_mean(many_x, groups=copies)
    np.testing.assert_allclose([many.value, *_ends(many)], [one.value, *_ends(one)])
    naive = bootstrap_mean(many_x)
    assert naive.high - naive.low < 0.6 * (many.high - many.low)
    one, many = bootstrap_mean_difference(x, y), bootstrap_mean_difference(many_x, many_y, groups=copies)
    np.testing.assert_allclose([many.value, *_ends(many)], [one.value, *_ends(one)])
    single, grouped = paired_permutation_test(x, y), paired_permutation_test(many_x, many_y, groups=copies)
    assert grouped.p_value == single.p_value
    assert grouped.n == 37 * 5
    assert paired_permutation_test(many_x, many_y).p_value < single.p_value


def test_groups_of_one_are_no_groups() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.random((2, 100))
    names = np.array([f"image {i:03d}" for i in range(100)])
    assert bootstrap_mean(x, groups=names) == bootstrap_mean(x)
    assert bootstrap_mean_difference(x, y, groups=names) == bootstrap_mean_difference(x, y)
    assert paired_permutation_test(x, y, groups=names) == paired_permutation_test(x, y)


def test_coverage_with_uneven_groups() -> None:
    """95 % intervals of images that share a group's level hold their promise with groups, not without."""
    rng = np.random.default_rng(2)
    inside = {"with": 0, "without": 0}
    for trial in range(200):
        sizes = rng.integers(1, 9, 40)
        groups = np.repeat(np.arange(40), sizes)
        x = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=len(groups))
        for name, given in (("with", groups), ("without", None)):
            low, high = _ends(bootstrap_mean(x, groups=given, n_resamples=400, seed=trial))
            inside[name] += low <= 0 <= high
    assert 0.88 <= inside["with"] / 200 <= 0.99
    assert inside["without"] / 200 < 0.75


def test_permutations_of_groups_are_counted_out() -> None:
    d, groups = np.array([0.5, 0.1, -0.2, 0.4, 0.3, -0.3]), [0, 0, 1, 2, 3, 3]
    sums = np.array([0.6, -0.2, 0.4, 0.0])
    extreme = [abs(np.dot(signs, sums)) >= 0.8 - 1e-12 for signs in itertools.product((-1, 1), repeat=4)]
    test = paired_permutation_test(d, np.zeros(6), groups=groups)
    assert (test.p_value, test.exact, test.n) == (np.mean(extreme), True, 6)
    assert test.difference == pytest.approx(0.8 / 6)


def test_one_group_has_no_interval_and_bad_groups_are_named() -> None:
    one = bootstrap_mean([0.1, 0.9], groups=[3, 3])
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(bootstrap_mean_difference([0.1, 0.9], [0.2, 0.3], groups=["a", "a"]).high)
    for groups in ([0, 1, 2], [0.5, 1.5]):
        for function in (bootstrap_mean_difference, paired_permutation_test):
            with pytest.raises(ValueError, match="groups: expected 2 integers or strings, one an image"):
                function([0.1, 0.9], [0.2, 0.3], groups=groups)


@pytest.mark.parametrize("kind", ["normal", "uniform", "exponential"])
@pytest.mark.parametrize("far", [0.3, 1.0, 2.0, 3.0, 4.5])
def test_many_differences_of_many_sizes_are_neither_drawn_nor_far_off(kind, far):
    """Against all sign patterns, counted on a grid of thousandths."""
    rng = np.random.default_rng(5)
    raw = {"normal": rng.normal(size=300), "uniform": rng.random(300), "exponential": rng.exponential(size=300)}[kind]
    sizes = np.clip(np.round(np.abs(raw) / np.abs(raw).mean() * 150), 1, 700).astype(int)
    assert np.square(sizes).max() < 0.05 * np.square(sizes).sum(), "none dominates"
    signs = np.where(rng.random(300) < 0.5, -1, 1)
    for place in np.argsort(sizes):  # signs turned until the sum is as far from 0 as wanted
        if signs @ sizes < far * np.sqrt(np.square(sizes).sum()):
            signs[place] = 1
    total = int(signs @ sizes)
    chances = np.ones(1)
    for size in sizes.tolist():
        longer = np.zeros(len(chances) + 2 * size)
        longer[: len(chances)] += chances / 2
        longer[2 * size :] += chances / 2
        chances = longer
    sums = np.arange(len(chances)) - sizes.sum()
    beyond = chances[np.abs(sums) > abs(total)].sum() + chances[np.abs(sums) == abs(total)].sum() / 2
    test = paired_permutation_test(signs * sizes / 1000, np.zeros(300))
    assert not test.exact
    assert test.p_value == pytest.approx(beyond, rel=0.01)
    assert paired_permutation_test(signs * sizes / 1000, np.zeros(300), n_resamples=1) == test, "nothing was drawn"


def test_all_signs_alike_of_many_sizes():
    d = np.random.default_rng(6).uniform(0.5, 1, 250)
    assert 0 < paired_permutation_test(d, np.zeros(250)).p_value < 1e-40
    assert paired_permutation_test(np.r_[d, -d], np.zeros(500)).p_value == pytest.approx(1)


def test_one_that_dominates_is_drawn():
    rng = np.random.default_rng(7)
    d = np.r_[rng.uniform(0.5, 1, 250) * rng.choice([-1, 1], 250), 50.0]
    first, second = (paired_permutation_test(d, np.zeros(251), n_resamples=999, seed=seed).p_value for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("off", [0.0, 1e-6, 1e-5, 1e-4, 9e-3, 1.1e-2])
def test_means_that_are_nearly_equal(off) -> None:
    """A saddlepoint next to 0 is a difference of two huge numbers: it came out as a p-value of -4000."""
    rng = np.random.default_rng(5)
    changes = (rng.random(401) + 0.1) * np.where(np.arange(401) % 2, 1, -1)
    changes[0] = 0
    changes[0] = off * np.sqrt(np.square(changes).sum()) - changes.sum()
    test = paired_permutation_test(changes, np.zeros(401))
    assert not test.exact
    assert test.p_value == pytest.approx(2 * stats.norm.sf(off), rel=1e-3)
