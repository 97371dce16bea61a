"""What the numbers say, in a sentence that a manager can read, and the figures that stand above it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from torch_bgdebias.probe.page.charts import interval_of, is_known, number, percent, points
from torch_bgdebias.probe.page.sections import accuracy, confidence
from torch_bgdebias.probe.results.comparison import ModelComparison, told_p
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, Estimate

__all__ = ["hero", "pick_after", "verdict"]

#: with more models than this, the page's head speaks of the best one alone
_TOLD = 4


def pick_after(reports: Sequence[BackgroundBiasReport]) -> int | None:
    """Which report stands for "after": of those after the first, the most accurate on random backgrounds."""
    if len(reports) < 2:
        return None

    def merit(index: int) -> float:
        estimate = accuracy(reports[index], "mixed_rand") or accuracy(reports[index], "original")
        return estimate.value if is_known(estimate) else -1.0

    return max(range(1, len(reports)), key=merit)


def verdict(reports: Sequence[BackgroundBiasReport], comparisons: Sequence[ModelComparison | None]) -> list[str]:
    """Sentences as HTML: what the first model loses, and what is left of that with the others.

    Of more than three others only the best one is told. An interval that holds zero is never called a bias, and one
    that is wide is said to be so.
    """
    first = reports[0]
    if not is_known(first.bg_gap):
        return [
            f"The BG-Gap of <b>{escape(first.model)}</b> is not known: the variants mixed_same and mixed_rand were not "
            "both measured."
        ]
    sentences = [_bias(first, confidence(reports))]
    for index in _shown(reports):
        if is_known(reports[index].bg_gap):
            sentences.append(_change(first, reports[index], comparisons[index - 1], confidence(reports)))
    return sentences


def hero(reports: Sequence[BackgroundBiasReport], comparisons: Sequence[ModelComparison | None]) -> str:
    """Verdict and headline figures: of one model, before and after, or of several beside each other."""
    first, others = reports[0], [(i, reports[i]) for i in _shown(reports)]
    if not others:
        figures = [_one("BG-Gap", first.bg_gap, 0, gap=True)]
        for variant, told in (("mixed_same", "own class's backgrounds"), ("mixed_rand", "random backgrounds")):
            if variant in first.variants:
                figures.append(_one(f"Accuracy, {told}", accuracy(first, variant), 0, gap=False))
        rows = ["".join(figures)]
    else:
        rows = [_row("BG-Gap", [(0, first), *others], gap=True)]
        if all(is_known(accuracy(r, "mixed_rand")) for _, r in [(0, first), *others]):
            rows.append(_row("Accuracy, random backgrounds", [(0, first), *others], gap=False))
    drawn = "".join(f"<div class='change'>{row}</div>" for row in rows)
    told = "".join(f"<p class='verdict'>{s}</p>" for s in verdict(reports, comparisons))
    return f"<div class='hero' id='verdict'>{drawn}{told}</div>"


def _shown(reports: Sequence[BackgroundBiasReport]) -> list[int]:
    """Which later reports the page's head speaks of."""
    after = pick_after(reports)
    return [] if after is None else list(range(1, len(reports))) if len(reports) <= _TOLD else [after]


def _row(what: str, models: Sequence[tuple[int, BackgroundBiasReport]], *, gap: bool) -> str:
    """One figure of several models, an arrow behind the first."""
    cards = [
        _one(f"{what}: {r.model}", r.bg_gap if gap else accuracy(r, "mixed_rand"), index, gap=gap)
        for index, r in models
    ]
    return f"{cards[0]}<div class='arrow' aria-hidden='true'>→</div>{''.join(cards[1:])}"


def _bias(report: BackgroundBiasReport, level: float) -> str:
    gap = report.bg_gap
    assert is_known(gap)
    name = f"<b>{escape(report.model)}</b>"
    ends = interval_of(gap)
    told = f"({100 * level:g}% interval {number(ends[0])} to {number(ends[1])})" if ends else "(no interval)"
    if ends is None:
        return f"{name} has a BG-Gap of {number(gap.value)} points {told}, from {gap.n} image(s): too few to judge."
    if ends[0] > 0:
        return (
            f"{name} loses <b>{number(gap.value)} points</b> of accuracy {told} when its objects stand in front of "
            "backgrounds of random classes: it reads part of its answer off the background."
        )
    if ends[1] < 0:
        return f"{name} is more accurate on random backgrounds than on its own class's, by {number(-gap.value)} {told}."
    return (
        f"For {name} no dependence on the background can be shown: its BG-Gap is {number(gap.value)} points {told}; "
        f"a loss of more than {number(ends[1])} points is unlikely."
    )


def _change(
    before: BackgroundBiasReport, after: BackgroundBiasReport, comparison: ModelComparison | None, level: float
) -> str:
    old, new = before.bg_gap, after.bg_gap
    assert is_known(old)
    assert is_known(new)
    name = f"<b>{escape(after.model)}</b>"
    ends = interval_of(new)
    told = f" ({100 * level:g}% interval {number(ends[0])} to {number(ends[1])})" if ends else ""
    if not _differs(old, new, comparison, level):
        sentence = (
            f"With {name} it is {number(new.value)} points{told}; the difference may be chance, so this measurement "
            "does not show that it helped."
        )
    elif new.value > old.value:
        sentence = f"With {name} the loss is larger: {number(new.value)} points{told}."
    elif ends is not None and ends[0] <= 0 and ends[1] < 0.05:
        sentence = f"With {name} <b>{_left(new.value)}</b>{told}: what is behind the object hardly matters any more."
    elif ends is not None and ends[0] <= 0:
        sentence = f"With {name} <b>{_left(new.value)}</b>{told}: no loss can be shown any more, on few images."
    else:
        gone = percent(1 - new.value / old.value)
        sentence = f"With {name} <b>{number(new.value)} points</b> are left{told}: {gone} of the loss is gone."
    return sentence + _interval_of_change(comparison) + _accuracy_change(before, after)


def _differs(old: Estimate, new: Estimate, comparison: ModelComparison | None, level: float) -> bool:
    """Whether the gaps differ beyond chance: by the paired test, or by intervals that do not overlap."""
    if comparison is not None and "bg_gap" in comparison.figures:
        return comparison.figures["bg_gap"].corrected < 1 - level
    first, second = interval_of(old), interval_of(new)
    return first is not None and second is not None and (second[1] < first[0] or second[0] > first[1])


def _interval_of_change(comparison: ModelComparison | None) -> str:
    change = None if comparison is None else comparison.figures.get("bg_gap")
    ends = None if change is None else interval_of(change.difference)
    if change is None or ends is None:
        return ""
    told = f" The gap changes by {points(change.difference.value)} points ({points(ends[0])} to {points(ends[1])}, "
    return f"{told}{escape(told_p(change.corrected))})."


def _left(gap: float) -> str:
    rounded = number(gap)
    return "none of it is left" if gap <= 0 or rounded == "0.0" else f"{rounded} points are left"


def _accuracy_change(before: BackgroundBiasReport, after: BackgroundBiasReport) -> str:
    old, new = accuracy(before, "mixed_rand"), accuracy(after, "mixed_rand")
    if not is_known(old) or not is_known(new):
        return ""
    told = f" Accuracy on random backgrounds goes from {percent(old.value, 1)} to {percent(new.value, 1)}"
    told += f"{_same_change(before, after)}."
    if new.value <= old.value:
        told += " It is <b>not more accurate</b> there: a model that has learned nothing has no gap either."
    return told


def _same_change(before: BackgroundBiasReport, after: BackgroundBiasReport) -> str:
    old, new = accuracy(before, "mixed_same"), accuracy(after, "mixed_same")
    if not is_known(old) or not is_known(new):
        return ""
    return f", on backgrounds of the own class from {percent(old.value, 1)} to {percent(new.value, 1)}"


def _one(what: str, estimate: Estimate | None, colour: int, *, gap: bool) -> str:
    if is_known(estimate):
        told = points(estimate.value) if gap else f"{100 * estimate.value:.1f}"
        ends = interval_of(estimate)
        between = f"{number(ends[0])} to {number(ends[1])}" if ends else "no interval"
    else:
        told, between = "?", "not known"
    unit = "points" if gap else "%"
    return (
        f"<div class='figure b{colour % 6}'><div class='what'>{escape(what)}</div>"
        f"<div class='number'>{told} <span class='unit'>{unit}</span></div><div class='range'>{between}</div></div>"
    )
