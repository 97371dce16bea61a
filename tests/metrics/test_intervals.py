"""Intervals against sums over all outcomes and formulas by another hand; coverage, exact and simulated."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.metrics import mean_difference_interval, mean_interval


def paired(plus: int, minus: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of right and wrong whose difference is +1 and -1 so many times."""
    first, second = np.zeros(n), np.zeros(n)
    first[:plus] = 1
    second[plus : plus + minus] = 1
    first[plus + minus : plus + minus + 3] = second[plus + minus : plus + minus + 3] = 1
    return first, second


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 30), (15, 30), (29, 30), (30, 30), (359, 359), (396, 400)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_shares_have_the_mid_p_interval(right: int, n: int, confidence: float) -> None:
    """At either end half of the chance of what was seen, and all of what lies beyond, is half of the error."""
    interval = mean_interval(np.r_[np.ones(right), np.zeros(n - right)], confidence=confidence)
    assert (interval.value, interval.n) == (right / n, n)
    seen = np.arange(n + 1)
    for end, beyond, limit in ((interval.low, seen > right, 0.0), (interval.high, seen < right, 1.0)):
        if right == n * limit:
            assert end == limit
            continue
        chances = stats.binom.pmf(seen, n, end)
        assert chances[beyond].sum() + chances[right] / 2 == pytest.approx((1 - confidence) / 2, abs=1e-9)
    exact = stats.binomtest(right, n).proportion_ci(confidence, "exact")
    assert exact.low <= interval.low <= right / n <= interval.high <= exact.high


@pytest.mark.parametrize("n", [30, 100, 400])
def test_exact_coverage_of_shares(n: int) -> None:
    """Over all true shares, with every outcome counted: never below 91.5 %, where Wilson's goes down to 85."""
    ends = [mean_interval(np.r_[np.ones(k), np.zeros(n - k)]) for k in range(n + 1)]
    low, high = np.array([e.low for e in ends]), np.array([e.high for e in ends])
    truths = np.r_[np.linspace(0.5, 0.99, 300), 1 - np.geomspace(1e-2, 1e-4, 100)]
    chances = stats.binom.pmf(np.arange(n + 1), n, truths[:, None])
    coverage = (chances * ((low <= truths[:, None]) & (high >= truths[:, None]))).sum(1)
    others = {}
    for method in ("wilson", "exact"):
        known = [stats.binomtest(k, n).proportion_ci(0.95, method) for k in range(n + 1)]
        other = np.array([(one.low, one.high) for one in known])
        others[method] = (chances * ((other[:, 0] <= truths[:, None]) & (other[:, 1] >= truths[:, None]))).sum(1)
    assert others["wilson"].min() <= 0.85
    assert others["exact"].min() >= 0.95
    if n == 30:
        assert min(others["exact"][np.argmin(abs(truths - p))] for p in (0.9, 0.99)) >= 0.99
    assert coverage.min() >= 0.915
    assert 0.945 <= coverage[:300].mean() <= 0.96


@pytest.mark.parametrize(("plus", "minus", "n"), [(12, 2, 50), (5, 5, 40), (1, 0, 30), (0, 3, 100), (40, 1, 60)])
def test_gaps_are_put_together_from_jeffreys_intervals(plus: int, minus: int, n: int) -> None:
    """Zou and Donner's formula, its correlation from the multinomial's covariance, by another hand."""
    interval = mean_difference_interval(*paired(plus, minus, n))
    assert interval.value == pytest.approx((plus - minus) / n)
    shares, ends = np.array([plus, minus]) / n, []
    for count in (plus, minus):
        low, high = stats.beta(count + 0.5, n - count + 0.5).interval(0.95)
        ends.append((0.0 if count == 0 else low, high))
    likely = (np.array([plus, minus]) + 0.5) / (n + 1)
    phi = -np.prod(likely) / np.sqrt(np.prod(likely * (1 - likely)))

    def away(first: float, second: float) -> float:
        return math.sqrt(first**2 + second**2 - 2 * phi * first * second)

    (pl, pu), (ql, qu), (p, q) = ends[0], ends[1], shares
    assert interval.low == pytest.approx(p - q - away(p - pl, qu - q))
    assert interval.high == pytest.approx(p - q + away(pu - p, q - ql))
    swapped = mean_difference_interval(*paired(minus, plus, n))
    assert (swapped.low, swapped.high) == pytest.approx((-interval.high, -interval.low))


def trinomial_coverage(n: int, up: float, down: float) -> float:
    """Chance that the interval of a gap holds the truth, every pair of counts counted."""
    truth, total = up - down, 0.0
    for plus in range(n + 1):
        for minus in range(n + 1 - plus):
            chance = float(stats.multinomial.pmf([plus, minus, n - plus - minus], n, [up, down, 1 - up - down]))
            if chance > 1e-12:
                interval = mean_difference_interval(*paired(plus, minus, n))
                total += chance * (interval.low - 1e-9 <= truth <= interval.high + 1e-9)
    return total


@pytest.mark.parametrize(("up", "down"), [(0.0875, 0.0375), (0.1035, 0.0135), (0.1005, 0.0015), (0.1, 0.0)])
def test_exact_coverage_of_small_gaps(up: float, down: float) -> None:
    """Gaps of the simulation in experiments/intervals at n 30, where Tango's interval holds up to 99 %."""
    assert 0.93 <= trinomial_coverage(30, up, down) <= 0.98


def test_exact_coverage_of_gaps_of_any_size() -> None:
    n, truths = 30, [(u, d) for u in np.linspace(0.005, 0.995, 34) for d in np.linspace(0, 0.6, 21) if u + d <= 1]
    pairs = [(a, b) for a in range(n + 1) for b in range(n + 1 - a)]
    ends = [mean_difference_interval(*paired(a, b, n)) for a, b in pairs]
    low, high = np.array([e.low for e in ends]) - 1e-9, np.array([e.high for e in ends]) + 1e-9
    counts = np.array([(a, b, n - a - b) for a, b in pairs])
    coverage = []
    for up, down in truths:
        chances = stats.multinomial.pmf(counts, n, [up, down, 1 - up - down])
        coverage.append(chances[(low <= up - down) & (high >= up - down)].sum())
    assert min(coverage) >= 0.91
    assert 0.945 <= np.mean(coverage) <= 0.96


@pytest.mark.parametrize(
    ("plus", "minus", "low", "high"), [(40, 0, 0.8790, 1), (0, 40, -1, -0.8790), (0, 0, -0.0609, 0.0609)]
)
def test_gaps_at_the_ends(plus: int, minus: int, low: float, high: float) -> None:
    first, second = np.zeros(40), np.zeros(40)
    first[:plus], second[:minus] = 1, 1
    interval = mean_difference_interval(first, second)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-3)


def test_images_with_one_of_the_two_alone_are_used() -> None:
    """Newcombe's example, shares 56/70 and 48/80 of independent images; by his Wilson intervals 0.0524 to 0.3339."""
    first = np.r_[np.ones(56), np.zeros(14), np.full(80, np.nan)]
    second = np.r_[np.full(70, np.nan), np.ones(48), np.zeros(32)]
    interval = mean_difference_interval(first, second)
    assert (interval.value, interval.n) == (pytest.approx(0.2), 0)
    assert (interval.low, interval.high) == pytest.approx((0.0524, 0.3339), abs=4e-3)
    one, two = mean_interval(first), mean_interval(second)
    assert interval.low == pytest.approx(0.2 - math.hypot(one.value - one.low, two.high - two.value))
    assert interval.high == pytest.approx(0.2 + math.hypot(one.high - one.value, two.value - two.low))
    scores = mean_difference_interval(np.r_[0.3, 0.5, np.nan, 0.7], np.r_[0.1, np.nan, 0.3, 0.2])
    assert scores.value == pytest.approx(0.5 - 0.2)
    assert scores.low < 0.3 < scores.high


def test_scores_without_skewness_have_students_interval_and_skewed_ones_lean() -> None:
    values = np.r_[-1.5, -0.5, 0.0, 0.5, 1.5] + 3
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    interval = mean_interval(values)
    assert (interval.low, interval.high) == pytest.approx((3 - half, 3 + half))
    skewed = mean_interval(np.random.default_rng(0).exponential(size=40))
    assert skewed.high - skewed.value > skewed.value - skewed.low
    assert mean_interval(np.random.default_rng(0).beta(60, 1, 12), bounds=(0, 1)).high <= 1


def test_groups_of_images_that_agree_count_once() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 8)
    whole = (rng.random(50) < 0.8)[groups].astype(float)  # all images of a group say the same
    in_groups, alone = mean_interval(whole, groups=groups), mean_interval(whole)
    once = mean_interval(whole[::8])
    assert in_groups.high - in_groups.low == pytest.approx(once.high - once.low, rel=0.08)
    assert in_groups.high - in_groups.low > 2 * (alone.high - alone.low)
    independent = (rng.random(400) < 0.8).astype(float)
    grouped, plain = mean_interval(independent, groups=groups), mean_interval(independent)
    assert grouped.high - grouped.low < 1.4 * (plain.high - plain.low)
    everything = mean_interval(np.ones(400), groups=groups)
    assert everything.low == pytest.approx(1 / (1 + stats.t.ppf(0.975, 49) ** 2 / 50))
    gap = mean_difference_interval(whole, np.zeros(400), groups=groups)
    assert gap.high - gap.low > 2 * (alone.high - alone.low)
    names = np.array([f"patient {g}" for g in groups])
    assert mean_interval(whole, groups=names) == in_groups


def test_shares_that_are_mostly_right_are_counted_by_their_size() -> None:
    """Half a label wrong in k images is half as far from 1 as k images wrong, and so is its interval."""
    whole, half = np.ones(80), np.ones(80)
    whole[:6], half[:6] = 0, 0.5
    one, other = mean_interval(whole, bounds=(0, 1)), mean_interval(half, bounds=(0, 1))
    assert (1 - other.low, 1 - other.high) == pytest.approx(((1 - one.low) / 2, (1 - one.high) / 2))
    gap, small = (mean_difference_interval(np.ones(80), x) for x in (whole, half))
    assert (small.low, small.high) == pytest.approx((gap.low / 2, gap.high / 2))
    sure = mean_interval(np.ones(80), bounds=(0, 1))
    assert sure.low == pytest.approx(0.05 ** (1 / 80))


def test_what_there_is_no_interval_of() -> None:
    assert math.isnan(mean_interval([]).value)
    assert mean_interval([np.nan, 1.0]).value == 1
    assert math.isnan(mean_interval([1.0]).low)
    assert math.isnan(mean_interval([1.0, 0.0], groups=[3, 3]).low)
    assert mean_interval([0.5, 0.5, 0.5]).low == 0.5
    assert math.isnan(mean_difference_interval([np.nan], [1.0]).value)
    with pytest.raises(ValueError, match=r"values: expected one number an image \(N,\), got shape \(1, 1\)"):
        mean_interval([[1.0]])
    with pytest.raises(ValueError, match="second: expected the same 2 images as first, got 1"):
        mean_difference_interval([1, 0], [1])
    with pytest.raises(ValueError, match=r"confidence: expected a number in \(0, 1\), got 95"):
        mean_interval([1, 0], confidence=95)
    with pytest.raises(ValueError, match="groups: expected 2 integers or strings, one an image"):
        mean_interval([1, 0], groups=[0.5, 1.0])
    with pytest.raises(ValueError, match="first: expected finite numbers or NaN, got infinity"):
        mean_difference_interval([math.inf], [1.0])


def test_coverage_near_the_ends() -> None:
    """Of the simulation in experiments/intervals: the rows on which a percentile bootstrap fails, fewer times."""
    path = Path(__file__).resolve().parents[2] / "experiments" / "intervals" / "run.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen = 0
    for number, (about, truth, simulate) in enumerate(module.rows()):
        if about["n"] == 400 or about.get("accuracy") == 0.5:
            continue
        rng = np.random.default_rng([8, number])
        intervals = [simulate(rng) for _ in range(250)]
        held = np.mean([i.low - 1e-9 <= truth <= i.high + 1e-9 for i in intervals])
        assert held >= 0.88, (about, held)  # four standard errors below 94 %
        assert all(i.low < i.high for i in intervals), about
        seen += 1
    assert seen == 2 * 2 * (6 * 3 + 3)
