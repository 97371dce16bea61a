"""Intervals against published ones and against likelihoods searched by brute force; coverage near the ends."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from torch_bgdebias.metrics import mean_difference_interval, mean_interval

Z = stats.norm.ppf(0.975)


def paired(plus: int, minus: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of right and wrong whose difference is +1 and -1 so many times."""
    first, second = np.zeros(n), np.zeros(n)
    first[:plus] = 1
    second[plus : plus + minus] = 1
    first[plus + minus : plus + minus + 3] = second[plus + minus : plus + minus + 3] = 1
    return first, second


@pytest.mark.parametrize(("right", "n"), [(0, 10), (1, 30), (15, 30), (29, 30), (30, 30), (359, 359), (396, 400)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_shares_have_wilsons_interval(right: int, n: int, confidence: float) -> None:
    values = np.r_[np.ones(right), np.zeros(n - right)]
    expected = stats.binomtest(right, n).proportion_ci(confidence, "wilson")
    found = mean_interval(values, confidence=confidence)
    assert (found.value, found.n) == (right / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    if right == n:
        assert found.low < found.high == 1


def score(delta: float, plus: int, minus: int, n: int) -> float:
    """The score statistic of a paired difference, the nuisance found by maximising the likelihood numerically."""

    def loss(q: float) -> float:  # q: chance of -1, q + delta: chance of +1
        chances = (q + delta, q, 1 - 2 * q - delta)
        counts = (plus, minus, n - plus - minus)
        return -sum(c * math.log(max(p, 1e-300)) for c, p in zip(counts, chances, strict=True) if c)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (plus - minus - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(("plus", "minus", "n"), [(12, 2, 50), (5, 5, 40), (1, 0, 30), (0, 3, 100), (40, 1, 60)])
def test_gaps_have_tangos_interval(plus: int, minus: int, n: int) -> None:
    found = mean_difference_interval(*paired(plus, minus, n))
    assert found.value == pytest.approx((plus - minus) / n)
    assert score(found.low, plus, minus, n) == pytest.approx(Z, abs=1e-3)
    assert score(found.high, plus, minus, n) == pytest.approx(-Z, abs=1e-3)
    swapped = mean_difference_interval(*paired(minus, plus, n))
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low))


@pytest.mark.parametrize(
    ("plus", "minus", "low", "high"), [(40, 0, 0.8248, 1), (0, 40, -1, -0.8248), (0, 0, -0.0876, 0.0876)]
)
def test_gaps_at_the_ends(plus: int, minus: int, low: float, high: float) -> None:
    first, second = np.zeros(40), np.zeros(40)
    first[:plus], second[:minus] = 1, 1
    found = mean_difference_interval(first, second)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)


def test_images_with_one_of_the_two_alone_are_used() -> None:
    """Newcombe's example: shares 56/70 and 48/80 of independent images differ by 0.0524 to 0.3339."""
    first = np.r_[np.ones(56), np.zeros(14), np.full(80, np.nan)]
    second = np.r_[np.full(70, np.nan), np.ones(48), np.zeros(32)]
    found = mean_difference_interval(first, second)
    assert (found.value, found.n) == (pytest.approx(0.2), 0)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    scores = mean_difference_interval(np.r_[0.3, 0.5, np.nan, 0.7], np.r_[0.1, np.nan, 0.3, 0.2])
    assert scores.value == pytest.approx(0.5 - 0.2)
    assert scores.low < 0.3 < scores.high


def test_scores_without_skewness_have_students_interval_and_skewed_ones_lean() -> None:
    values = np.r_[-1.5, -0.5, 0.0, 0.5, 1.5] + 3
    half = stats.t.ppf(0.975, 4) * values.std(ddof=1) / math.sqrt(5)
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    skewed = mean_interval(np.random.default_rng(0).exponential(size=40))
    assert skewed.high - skewed.value > skewed.value - skewed.low
    assert mean_interval(np.random.default_rng(0).beta(60, 1, 12), bounds=(0, 1)).high <= 1


def test_groups_of_images_that_agree_count_once() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(50), 8)
    whole = (rng.random(50) < 0.8)[groups].astype(float)  # all images of a group say the same
    found, alone = mean_interval(whole, groups=groups), mean_interval(whole)
    once = mean_interval(whole[::8])
    assert found.high - found.low == pytest.approx(once.high - once.low, rel=0.08)
    assert found.high - found.low > 2 * (alone.high - alone.low)
    independent = (rng.random(400) < 0.8).astype(float)
    grouped, plain = mean_interval(independent, groups=groups), mean_interval(independent)
    assert grouped.high - grouped.low < 1.4 * (plain.high - plain.low)
    everything = mean_interval(np.ones(400), groups=groups)
    assert everything.low == pytest.approx(1 / (1 + stats.t.ppf(0.975, 49) ** 2 / 50))
    gap = mean_difference_interval(whole, np.zeros(400), groups=groups)
    assert gap.high - gap.low > 2 * (alone.high - alone.low)
    names = np.array([f"patient {g}" for g in groups])
    assert mean_interval(whole, groups=names) == found


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
        rng = np.random.default_rng([7, number])
        intervals = [simulate(rng) for _ in range(250)]
        held = np.mean([i.low - 1e-9 <= truth <= i.high + 1e-9 for i in intervals])
        assert held >= 0.90, (about, held)  # three standard errors below 94 %
        assert all(i.low < i.high for i in intervals), about
        seen += 1
    assert seen == 2 * 2 * (3 * 3 + 3)
