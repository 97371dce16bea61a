"""Planned against simulated power, with the very functions that a report uses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from torch_bgdebias.metrics import (
    gap_power,
    images_for_gap,
    images_for_interval,
    mean_difference_interval,
    mean_interval,
    paired_permutation_test,
    usual_changes,
)
from torch_bgdebias.metrics.intervals import changed_sides
from torch_bgdebias.metrics.planning import _least_by_interval

TRIALS = 2500
CHANCE = 3 * math.sqrt(0.25 / TRIALS)  # 3 points; of powers near 1 far less


def simulated(rng, n: int, gap: float, changed: float, rule: str, group_size: int, correlation: float) -> bool:
    """Whether one measurement of ``n`` images shows the gap."""
    up, down = (changed + gap) / 2, (changed - gap) / 2
    u, groups = rng.random(n), None
    if group_size > 1:  # two images of a group share their outcome with chance ``correlation``
        groups = np.arange(n) // group_size
        u = np.where(rng.random(n) < math.sqrt(correlation), rng.random(groups[-1] + 1)[groups], u)
    before, after = (u < up).astype(float), ((u >= up) & (u < up + down)).astype(float)
    if rule == "test":
        return paired_permutation_test(before, after, groups=groups, n_resamples=499).p_value <= 0.05
    interval = mean_difference_interval(before, after, groups=groups)
    return interval.low > 0 or interval.high < 0


@pytest.mark.parametrize(
    ("n", "gap", "accuracy", "rule", "group_size", "correlation"),
    [
        (616, 0.05, 0.8, "interval", 1, 0),
        (658, 0.05, 0.8, "test", 1, 0),
        (60, 0.2, 0.9, "test", 1, 0),
        (40, 0.25, 0.7, "interval", 1, 0),
        (400, 0.1, 0.9, "interval", 4, 0.5),
        (400, 0.1, 0.8, "interval", 10, 0.3),
    ],
)
def test_planned_and_simulated_power_agree(n, gap, accuracy, rule, group_size, correlation):
    planned = gap_power(n, gap, accuracy, rule=rule, group_size=group_size, correlation=correlation)
    rng = np.random.default_rng(n)
    changed = usual_changes(gap, accuracy)
    hits = sum(simulated(rng, n, gap, changed, rule, group_size, correlation) for _ in range(TRIALS))
    assert abs(hits / TRIALS - planned) < 0.02 + CHANCE * 2 * math.sqrt(planned * (1 - planned))


@pytest.mark.parametrize("rule", ["interval", "test"])
@pytest.mark.parametrize(("gap", "accuracy", "changed"), [(0.05, 0.8, None), (0.2, 0.6, 0.3), (0.1, 1.0, 0.1)])
def test_the_fewest_images_reach_the_power_and_two_fewer_do_not(rule, gap, accuracy, changed):
    plan = images_for_gap(gap, accuracy, changed=changed, rule=rule)
    assert plan.reached == gap_power(plan.images, gap, accuracy, changed=changed, rule=rule) >= 0.8
    assert gap_power(int(0.9 * plan.images), gap, accuracy, changed=changed, rule=rule) < 0.8


def test_the_interval_that_was_planned_is_as_narrow_as_planned():
    plan = images_for_interval(0.03, 0.9)
    right = round(0.9 * plan.images)
    interval = mean_interval(np.r_[np.ones(right), np.zeros(plan.images - right)])
    assert (interval.high - interval.low) / 2 == pytest.approx(plan.reached, rel=0.02)
    assert plan.reached <= 0.03
    gap = images_for_interval(0.03, 0.9, gap=0.05, changed=0.09)
    before = np.r_[np.ones(round(0.07 * gap.images)), np.zeros(gap.images - round(0.07 * gap.images))]
    after = np.roll(
        np.r_[np.ones(round(0.02 * gap.images)), np.zeros(gap.images - round(0.02 * gap.images))], -len(before) // 2
    )
    shown = mean_difference_interval(before, after)
    assert (shown.high - shown.low) / 2 == pytest.approx(gap.reached, rel=0.03)


def test_groups_cost_their_design_effect():
    alone, in_groups = images_for_gap(0.05, 0.8), images_for_gap(0.05, 0.8, group_size=4, correlation=0.5)
    assert in_groups.images / alone.images == pytest.approx(1 + 3 * 0.5, rel=0.02)
    assert in_groups.groups * 4 == in_groups.images
    assert images_for_gap(0.05, 0.8, group_size=4, correlation=0.0).images == pytest.approx(alone.images, rel=0.02)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: images_for_gap(0, 0.8), "gap: expected a number in (0, accuracy], got 0 with accuracy 0.8"),
        (lambda: images_for_gap(0.9, 0.8), "gap: expected a number in (0, accuracy], got 0.9"),
        (lambda: images_for_gap(0.1, 1.2), "accuracy: expected a number in (0, 1], got 1.2"),
        (lambda: images_for_gap(0.1, 0.8, power=1), "power: expected a number in (0, 1), got 1"),
        (lambda: images_for_gap(0.1, 0.8, changed=0.05), "changed: expected from 0.1 (the gap) to 0.5"),
        (lambda: images_for_gap(0.1, 0.8, correlation=2), "correlation: expected a number in [0, 1], got 2"),
        (lambda: images_for_gap(1e-5, 0.8), "images: more than 10,000,000 would be needed"),
        (lambda: gap_power(30, 0.1, 0.8, group_size=10, correlation=0.5), "at least 20 groups to plan with, got 3"),
        (lambda: images_for_interval(0.5, 0.8), "half_width: expected a number in (0, 0.5), got 0.5"),
        (lambda: images_for_interval(0, 0.8), "half_width: expected a number in (0, 0.5), got 0"),
        (lambda: images_for_interval(0.6, 0.8), "half_width: expected a number in (0, 0.5), got 0.6"),
    ],
)
def test_numbers_out_of_range(call, text):
    with pytest.raises(ValueError) as caught:
        call()
    assert text in str(caught.value)


def test_intervals_of_groups_are_wilson_s_with_student_s_quantile():
    """Written out: the fewest groups of four, half alike, whose interval is at most 0.05 to either side."""

    def half(groups: int) -> float:
        n, z = groups * 4 / (1 + 3 * 0.5), stats.t.ppf(0.975, groups - 1)
        return z / (1 + z * z / n) * math.sqrt(0.8 * 0.2 / n + z * z / (4 * n * n))

    fewest = next(groups for groups in range(2, 1000) if half(groups) <= 0.05)
    planned = images_for_interval(0.05, 0.8, group_size=4, correlation=0.5)
    assert planned.images == 4 * fewest
    assert planned.reached == pytest.approx(half(fewest))


def test_least_of_changes_as_a_search_through_all_has_them():
    """The smallest number whose interval is above 0, one more than there are where there is none."""
    counts, n = np.arange(1, 16), 60
    expected = [
        next((k for k in range((count + 1) // 2, count + 1) if changed_sides(k / n, (count - k) / n, n, 0.05)[0] > 0),
             count + 1)
        for count in counts.tolist()
    ]  # fmt: skip
    least = _least_by_interval(counts, n, 0.05)
    assert least.tolist() == expected
    assert any(k == count for k, count in zip(expected, counts, strict=True)), "all of them, and no less"


def test_few_groups_make_the_interval_wider_and_not_the_test():
    """An interval of means of groups takes its quantile of Student's t."""
    few = {"group_size": 4, "correlation": 0.5, "changed": 0.3}
    test, interval = (gap_power(100, 0.15, 0.8, rule=rule, **few) for rule in ("test", "interval"))
    assert interval < test - 0.01
    test, interval = (gap_power(20_000, 0.01, 0.8, rule=rule, **few) for rule in ("test", "interval"))
    assert interval == pytest.approx(test, abs=0.01)
