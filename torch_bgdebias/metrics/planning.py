"""How many images a measurement needs, before it is made: for an interval of some width, or to show a gap.

A BG-Gap, or a change of accuracy between two models, is measured on the same images twice: what counts are the images
that change sides: ``changed`` of them in all, more of one kind than of the other by the gap. The power is that of the
very rule that a report goes by, summed over all outcomes and not approximated: the interval of the gap excludes 0, or
the exact test of two models gives p <= alpha. Groups of ``group_size`` images with the intra-class correlation
``correlation`` divide the number of images by the design effect 1 + (group_size - 1) correlation.

Source: Connett, Smith and McHugh, Statistics in Medicine 6, 1987 (paired shares); Kish, Survey Sampling, 1965, section
8.2 (design effect).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from torch_bgdebias.checks import check_confidence, check_count, check_option
from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.metrics.intervals import changed_sides, mid_p, wilson

__all__ = ["PlannedImages", "gap_power", "images_for_gap", "images_for_interval", "usual_changes"]

#: what shows a gap: the report's interval excludes 0, or the exact test of two models on the same images
Rule = Literal["interval", "test"]
RULES = ("interval", "test")
_MOST = 10_000_000
_FEWEST_GROUPS = 20


@dataclasses.dataclass(frozen=True)
class PlannedImages:
    """The number of images needed.

    Attributes:
        images: in all.
        groups: that they come in; as many as images where every image is its own.
        reached: the power, or the width of the interval, with so many.
    """

    images: int
    groups: int
    reached: float


def usual_changes(gap: float, accuracy: float) -> float:
    """Share of images that change sides where nothing is known of it: halfway between the fewest (the gap itself) and
    as many as if both answers to an image had nothing to do with each other.

    Args:
        gap: accuracy that is lost, in (0, accuracy].
        accuracy: before, in (0, 1].
    """
    _check_gap(gap, accuracy)
    after = accuracy - gap
    independent = accuracy * (1 - after) + after * (1 - accuracy)
    return (gap + max(independent, gap)) / 2


def gap_power(
    images: int,
    gap: float,
    accuracy: float,
    *,
    changed: float | None = None,
    rule: Rule = "interval",
    group_size: int = 1,
    correlation: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """The probability that so many images show a gap.

    Args:
        images: how many, 2 to ten million.
        gap: the true one, in (0, accuracy].
        accuracy: on the images with the higher one, in (0, 1].
        changed: share of images that change sides, from ``gap`` to what the accuracies allow; `usual_changes` when
            ``None``. A report of a similar model says it: images right in one variant and wrong in the other.
        rule: ``"interval"``: the interval of a BG-Gap excludes 0; ``"test"``: the exact test of two models.
        group_size: images a group.
        correlation: of the differences within a group, in [0, 1].
        confidence: of the interval; 1 - alpha of the test. For M tests at once pass 1 - alpha / M.

    Returns:
        float: in [0, 1].

    Raises:
        ValueError: a number out of range, or fewer than 20 groups, of which too little is known beforehand.

    Example:
        >>> round(gap_power(800, 0.05, 0.8), 2)
        0.89
    """
    check_count(images, name="images", least=2)
    if images > _MOST:
        raise ValueError(f"images: expected at most {_MOST:,}, got {images:,}")
    up, down = _shares(gap, accuracy, changed)
    check_option(rule, RULES, name="rule")
    check_confidence(confidence)
    effect = _design_effect(group_size, correlation)
    groups = math.ceil(images / group_size)
    if group_size > 1 and groups < _FEWEST_GROUPS:
        raise ValueError(f"images: expected at least {_FEWEST_GROUPS} groups to plan with, got {groups}")
    error = 1 - confidence
    if group_size > 1 and rule == "interval":  # quantiles are Student's there
        error = 2 * float(special.ndtr(special.stdtrit(groups - 1, error / 2)))
    n = max(2, round(images / effect))
    fewest_changes, most_changes = (int(x) for x in stats.binom.ppf([1e-8, 1 - 1e-8], n, up + down))
    counts = np.arange(fewest_changes, most_changes + 1)
    # in groups the test exchanges the signs of whole groups, whose sums have more values than right and wrong
    exact = rule == "test" and group_size == 1
    needed = _least_by_test(counts, error) if exact else _least_by_interval(counts, n, error)
    share = up / (up + down)
    rejected = stats.binom.sf(needed - 1, counts, share) + stats.binom.cdf(counts - needed, counts, share)
    return float(stats.binom.pmf(counts, n, up + down) @ np.minimum(rejected, 1.0))


def images_for_gap(
    gap: float,
    accuracy: float,
    *,
    power: float = 0.8,
    changed: float | None = None,
    rule: Rule = "interval",
    group_size: int = 1,
    correlation: float = 0.0,
    confidence: float = 0.95,
) -> PlannedImages:
    """The smallest number of images that shows a gap with this power; arguments as for `gap_power`.

    Args:
        power: in (0, 1).
        gap, accuracy, changed, rule, group_size, correlation, confidence: as there.

    Raises:
        ValueError: as there, or more than ten million images.

    Example:
        >>> images_for_gap(0.05, 0.8).images
        616
    """
    if not 0 < power < 1:
        raise ValueError(f"power: expected a number in (0, 1), got {power}")

    def reached(groups: int) -> float:
        return gap_power(
            groups * group_size,
            gap,
            accuracy,
            changed=changed,
            rule=rule,
            group_size=group_size,
            correlation=correlation,
            confidence=confidence,
        )

    _design_effect(group_size, correlation)
    groups = _fewest(lambda groups: reached(groups) >= power, group_size)
    return PlannedImages(groups * group_size, groups, reached(groups))


def images_for_interval(
    half_width: float,
    accuracy: float,
    *,
    gap: float | None = None,
    changed: float | None = None,
    group_size: int = 1,
    correlation: float = 0.0,
    confidence: float = 0.95,
) -> PlannedImages:
    """The smallest number of images with which the interval of an accuracy or a gap is as narrow as required.

    Args:
        half_width: half of the distance between its ends, in (0, 0.5).
        accuracy: expected, in (0, 1].
        gap: the expected gap, where the interval is that of the gap; ``None``: that of the accuracy.
        changed: as for `gap_power`.
        group_size: images a group.
        correlation: within a group, in [0, 1].
        confidence: of the interval.

    Returns:
        PlannedImages: ``reached`` is half of the width with so many.

    Raises:
        ValueError: a number out of range, or more than ten million images.

    Example:
        >>> images_for_interval(0.05, 0.8).images
        246
    """
    if not 0 < half_width < 0.5:
        raise ValueError(f"half_width: expected a number in (0, 0.5), got {half_width}")
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy: expected a number in (0, 1], got {accuracy}")
    check_confidence(confidence)
    effect = _design_effect(group_size, correlation)
    shares = None if gap is None else _shares(gap, accuracy, changed)

    def half(groups: int) -> float:
        n = groups * group_size / effect
        z = special.ndtri(0.5 + confidence / 2)
        if group_size > 1:
            z = special.stdtrit(groups - 1, 0.5 + confidence / 2)
        if shares is not None:
            low, high = changed_sides(*shares, n, 2 * float(special.ndtr(-z)))
        else:
            low, high = (mid_p if group_size == 1 else wilson)(accuracy * n, n, float(z))
        return (high - low) / 2

    groups = _fewest(lambda groups: half(groups) <= half_width, group_size)
    return PlannedImages(groups * group_size, groups, half(groups))


def _fewest(enough: Callable[[int], bool], group_size: int) -> int:
    """The fewest groups that are enough, where more are always enough too."""
    low = 1 if group_size == 1 else _FEWEST_GROUPS - 1  # not enough, or not tried
    high = low + 1
    while not enough(high):
        low, high = high, 2 * high
        if high * group_size > _MOST:
            raise ValueError(f"images: more than {_MOST:,} would be needed")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _least_by_test(counts: NDArray[np.int64], error: float) -> Floats:
    """The least number of one kind that gives p <= error, of so many images that changed sides."""
    return np.asarray(stats.binom.isf(error / 2, counts, 0.5) + 1, np.float64)


def _least_by_interval(counts: NDArray[np.int64], n: int, error: float) -> Floats:
    """The least number of one kind that moves the interval's lower end above 0, of so many that changed sides."""

    def shown(plus: int, count: int) -> bool:
        return changed_sides(plus / n, (count - plus) / n, n, error)[0] > 0

    needed = []
    guess = 0
    for count in counts.tolist():
        guess = max(guess, (count + 1) // 2)
        while guess <= count and not shown(guess, count):
            guess += 1
        needed.append(guess if guess <= count else count + 1)
        guess = min(guess, count)
    return np.asarray(needed, np.float64)


def _shares(gap: float, accuracy: float, changed: float | None) -> tuple[float, float]:
    """Images that are right before and wrong after, and the other way round."""
    _check_gap(gap, accuracy)
    if changed is None:
        changed = usual_changes(gap, accuracy)
    largest = gap + 2 * min(accuracy - gap, 1 - accuracy)
    if not gap - 1e-12 <= changed <= largest + 1e-12:
        raise ValueError(
            f"changed: expected from {gap:g} (the gap) to {largest:g} with this accuracy and gap, got {changed:g}"
        )
    return (changed + gap) / 2, max(changed - gap, 0.0) / 2


def _check_gap(gap: float, accuracy: float) -> None:
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy: expected a number in (0, 1], got {accuracy}")
    if not 0 < gap <= accuracy:
        raise ValueError(f"gap: expected a number in (0, accuracy], got {gap} with accuracy {accuracy}")


def _design_effect(group_size: int, correlation: float) -> float:
    check_count(group_size, name="group_size")
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation: expected a number in [0, 1], got {correlation}")
    return 1 + (group_size - 1) * correlation
