"""The results of one or several models in sentences for readers who are no statisticians."""

from __future__ import annotations

from collections.abc import Sequence

from torch_bgdebias.probe.results.comparison import ModelComparison
from torch_bgdebias.probe.results.gaps import (
    change_sentence,
    cost_sentence,
    gain_sentence,
    has_unlearned,
    judged_sentence,
    knows_nothing,
    side_of,
    turned_sentence,
)
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.spelling import (
    VARIANT_WORDS,
    Sentence,
    Words,
    interval_of,
    is_known,
    number,
    p_words,
    percent,
    points,
    say,
    strong,
)

__all__ = ["pick_after", "shown_models", "verdict"]

#: with more models than this, the verdict speaks of the best one alone
_MOST = 4
#: accuracy on backgrounds of the own class that is not lost without a word
_MUCH = 0.05
#: what tells a price from a mere loss
_COMPARED = ("original", "mixed_rand")


def pick_after(reports: Sequence[Measurement]) -> int | None:
    """Which report stands for "after": of those after the first, the one whose worst variant is the best."""
    if len(reports) < 2:
        return None

    def merit(index: int) -> float:
        worst = reports[index].worst_variant()
        return -1.0 if worst is None else worst[1].value

    return max(range(1, len(reports)), key=merit)


def shown_models(reports: Sequence[Measurement]) -> list[int]:
    """Which later reports a verdict speaks of."""
    after = pick_after(reports)
    return [] if after is None else list(range(1, len(reports))) if len(reports) <= _MOST else [after]


def verdict(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> list[Sentence]:
    """What the first model loses, and what is left of that with the others.

    Of more than three others only the best one is spoken of. An interval that holds zero is never called a bias, one
    that is wide is said to be so, and one below zero is a bias of the other sign.
    """
    first = reports[0]
    sentences = [judged_sentence(first)]
    if not is_known(first.bg_gap):
        return sentences
    blank = knows_nothing(first) is not None
    for index in shown_models(reports):
        later = reports[index]
        if not is_known(later.bg_gap):
            continue
        if blank or knows_nothing(later) is not None:  # there is nothing to set the later gap against, or no such gap
            sentences.append(judged_sentence(later))
        else:
            sentences.append(_change(first, later, comparisons[index - 1]))
    return sentences


def _change(before: Measurement, after: Measurement, comparison: ModelComparison | None) -> Sentence:
    old, new = before.bg_gap, after.bg_gap
    assert is_known(old)
    assert is_known(new)
    differs = _differs(old, new, comparison)
    sentence = change_sentence(after.model, old, new, differs=differs, level=before.confidence)
    settings: Sentence = ()
    if comparison is not None and comparison.differing:
        differences = "; ".join(comparison.differing)
        settings = say(
            strong("The two were measured at other settings"), f" ({differences}), which may be part of the change. "
        )
    on_given, on_random = _changes_of_accuracy(before, after, comparison)
    return (
        *settings,
        *sentence,
        *cost_sentence(on_given, on_random),
        *gain_sentence(on_given),
        *turned_sentence(after),
        *_interval_of_change(comparison),
        *_accuracy_change(before, after, comparison),
    )


def _changes_of_accuracy(
    before: Measurement, after: Measurement, comparison: ModelComparison | None
) -> tuple[Estimate | None, Estimate | None]:
    """By how much accuracy changes on the images as they are and on random backgrounds.

    Without a comparison as far apart as the intervals.
    """
    if comparison is not None:
        return comparison.changes_of_accuracy()
    on_given, on_random = (_apart(before.accuracy(variant), after.accuracy(variant)) for variant in _COMPARED)
    return on_given, on_random


def _apart(old: Estimate | None, new: Estimate | None) -> Estimate | None:
    if not is_known(old) or not is_known(new):
        return None
    return Estimate(new.value - old.value, new.low - old.high, new.high - old.low, min(old.n, new.n))


def _differs(old: Estimate, new: Estimate, comparison: ModelComparison | None) -> bool:
    """Whether the gaps differ beyond chance: by the paired test, or by intervals that do not overlap."""
    if comparison is not None and "bg_gap" in comparison.figures:
        return comparison.gap_differs
    first, second = interval_of(old), interval_of(new)
    return first is not None and second is not None and (second[1] < first[0] or second[0] > first[1])


def _interval_of_change(comparison: ModelComparison | None) -> Sentence:
    change = None if comparison is None else comparison.figures.get("bg_gap")
    ends = None if change is None else interval_of(change.difference)
    if change is None or ends is None:
        return ()
    by = f" The gap changes by {points(change.difference.value)} points ({points(ends[0])} to {points(ends[1])}"
    clear = ends[0] > 0 or ends[1] < 0
    if not clear or comparison is None or comparison.gap_differs:
        return say(f"{by}, {p_words(change.corrected)}).")
    tests = comparison.settings["tests"]["figures"]
    return say(
        f"{by} taken by itself; {p_words(change.corrected)} corrected for the {tests} figures that are compared, of "
        "which one may change so by chance)."
    )


def _accuracy_change(before: Measurement, after: Measurement, comparison: ModelComparison | None) -> Sentence:
    old, new = before.accuracy("mixed_rand"), after.accuracy("mixed_rand")
    if not is_known(old) or not is_known(new):
        return ()
    opening = f" Accuracy on random backgrounds goes from {percent(old.value, 1)} to {percent(new.value, 1)}"
    sentence: list[str | Words] = [f"{opening}{_own_accuracy_change(before, after)}."]
    sentence += _no_better(before, after)
    if not has_unlearned(*_changes_of_accuracy(before, after, comparison)):  # that has been said
        sentence += _lost_on_own(before, after, comparison)
    worst_before, worst_after = before.worst_variant(), after.worst_variant()
    if worst_before and worst_after and worst_after[1].value < worst_before[1].value:
        now, then = (f"{percent(e.value, 1)} ({VARIANT_WORDS[variant]})" for variant, e in (worst_after, worst_before))
        sentence += [" Its ", strong("worst accuracy is lower"), f": {now} instead of {then}."]
    return say(*sentence)


def _no_better(before: Measurement, after: Measurement) -> list[str | Words]:
    """A warning where the backgrounds on which accuracy was lost cost as much as before."""
    own = side_of(before.bg_gap) == "own"
    old, new = (report.accuracy("mixed_same" if own else "mixed_rand") for report in (before, after))
    if not is_known(old) or not is_known(new) or new.value > old.value:
        return []
    where = "on those of the own class" if own else "there"
    return [" It is ", strong("not more accurate"), f" {where}: a model that has learned nothing has no gap either."]


def _own_accuracy_change(before: Measurement, after: Measurement) -> str:
    old, new = before.accuracy("mixed_same"), after.accuracy("mixed_same")
    if not is_known(old) or not is_known(new):
        return ""
    return f", on backgrounds of the own class from {percent(old.value, 1)} to {percent(new.value, 1)}"


def _lost_on_own(before: Measurement, after: Measurement, comparison: ModelComparison | None) -> list[str | Words]:
    """The cost of a smaller gap where backgrounds are as usual, if that is much and beyond chance."""
    old, new = before.accuracy("mixed_same"), after.accuracy("mixed_same")
    if not is_known(old) or not is_known(new) or old.value - new.value < _MUCH:
        return []
    change = None if comparison is None else comparison.figures.get("accuracy/mixed_same")
    ends = None if change is None else interval_of(change.difference)
    if ends is not None and ends[1] >= 0:
        return []
    lost = number(old.value - new.value)
    sentence: list[str | Words] = [" On backgrounds of the own class it is ", strong(f"{lost} points less accurate")]
    was, is_now = before.bg_gap, after.bg_gap
    if is_known(was) and is_known(is_now) and was.value - is_now.value > old.value - new.value:
        sentence.append(f": that much of the {number(was.value - is_now.value)} points by which the gap is smaller")
    return [*sentence, "."]
