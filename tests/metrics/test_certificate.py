"""The certificate: Clopper and Pearson's with one background, never wrong more often than allowed with several."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.metrics import certified_accuracy


@pytest.mark.parametrize(("right", "n"), [(0, 7), (1, 1), (5, 7), (95, 100), (30, 30), (1990, 2000)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_with_one_background_it_is_clopper_and_pearson_s(right: int, n: int, confidence: float) -> None:
    certificate = certified_accuracy(np.r_[np.ones(right), np.zeros(n - right)][:, None], confidence=confidence)
    expected = stats.binomtest(right, n, alternative="greater").proportion_ci(confidence).low
    assert certificate.at_least == pytest.approx(expected, abs=1e-12)
    assert certificate.one_background_at_least == pytest.approx(expected, abs=1e-12)
    assert (certificate.objects, certificate.backgrounds) == (n, 1)


def test_objects_that_are_right_on_all_or_none_are_as_good_as_one_background() -> None:
    """The answers about one object are copies of each other then: 400 of them are no more than 50."""
    rows = np.repeat(np.r_[np.ones(45), np.zeros(5)][:, None], 8, axis=1)
    assert certified_accuracy(rows).at_least == pytest.approx(certified_accuracy(rows[:, :1]).at_least, abs=1e-12)


def test_it_is_the_quantile_under_dirichlet_weights() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.random((40, 5)) < rng.beta(6, 1, 40)[:, None]).astype(int)
    means = rng.dirichlet(np.ones(41), 200_000) @ np.r_[0.0, rows.mean(1)]
    below = (means <= certified_accuracy(rows).at_least).mean()
    assert below == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 200_000))


def test_many_backgrounds_of_alike_objects_say_nearly_as_much_as_so_many_images() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.random((400, 10)) < 0.9).astype(int)
    certificate = certified_accuracy(rows)
    as_if = certified_accuracy(rows.reshape(-1, 1)).at_least
    assert certificate.one_background_at_least + 0.01 < certificate.at_least < as_if


@pytest.mark.parametrize(("n", "m", "steps"), [(2, 2, 40), (3, 2, 40), (4, 2, 40), (3, 3, 16), (6, 2, 30)])
def test_coverage_counted_exactly_over_all_shares(n: int, m: int, steps: int) -> None:
    """Every way in which objects can differ, on a grid; every outcome counted."""
    outcomes = [c for c in itertools.product(range(n + 1), repeat=m + 1) if sum(c) == n]
    rows = [[[1] * k + [0] * (m - k) for k, times in enumerate(c) for _ in range(times)] for c in outcomes]
    bounds = np.array([certified_accuracy(row).at_least for row in rows])
    ways = np.array([math.factorial(n) / math.prod(map(math.factorial, c)) for c in outcomes])
    counts, least = np.array(outcomes), 1.0
    for parts in itertools.product(range(steps + 1), repeat=m):
        if sum(parts) <= steps:
            shares = np.array([*parts, steps - sum(parts)]) / steps
            truth = float(shares @ np.arange(m + 1)) / m
            chances = ways * np.prod(np.where(counts > 0, shares**counts, 1.0), axis=1)
            least = min(least, float(chances[bounds <= truth + 1e-9].sum()))
    assert 0.95 - 1e-9 <= least < 0.97, "it holds, and is not empty"


@pytest.mark.parametrize(("truth", "draw"), [
    (0.9, lambda rng, n: rng.beta(3, 1 / 3, n)),
    (0.95, lambda rng, n: (rng.random(n) < 0.95) * 1.0),
    (0.75, lambda rng, n: np.where(rng.random(n) < 0.5, 1.0, 0.5)),
    (0.98, lambda rng, n: np.full(n, 0.98)),
])  # fmt: skip
def test_it_holds_in_simulations_where_counting_answers_fails(truth, draw) -> None:
    rng, held, naive = np.random.default_rng(2), 0, 0
    for _ in range(400):
        rows = (rng.random((60, 6)) < draw(rng, 60)[:, None]).astype(int)
        held += certified_accuracy(rows).at_least <= truth
        naive += certified_accuracy(rows.reshape(-1, 1)).at_least <= truth
    assert held / 400 >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / 400)
    if truth in (0.95, 0.9):
        assert naive / 400 < 0.93, "answers about one object are not independent"


def test_groups_are_the_sample() -> None:
    rows = np.array([[1, 1], [1, 1], [0, 0], [1, 0]])
    by_group = certified_accuracy(rows, groups=["a", "a", "b", "c"])
    assert by_group.objects == 3
    assert by_group.accuracy == pytest.approx((1 + 0 + 0.5) / 3)
    assert by_group.at_least == certified_accuracy([[1, 1], [0, 0], [1, 0]]).at_least


@pytest.mark.parametrize("wrong", [[1, 0], [[0.5, 1]], np.ones((0, 3)), [[2, 1]], [[np.nan, 1]]])
def test_what_is_not_right_or_wrong_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=r"right: expected 0 and 1 \(N, M\)"):
        certified_accuracy(wrong)
