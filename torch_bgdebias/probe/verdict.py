"""What the numbers say, in a sentence that a manager can read, and the figures that stand above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

from torch_bgdebias.probe.charts import interval_of, is_known, number, percent, points
from torch_bgdebias.probe.results import BackgroundBiasReport, Estimate
from torch_bgdebias.probe.sections import Tests, accuracy, confidence

__all__ = ["compare", "hero", "pick_after", "verdict"]


def compare(reports: Sequence[BackgroundBiasReport]) -> list[Tests | None]:
    """Paired tests of each later report (less the first one), p-values corrected; ``None`` without common images."""
    from torch_bgdebias.metrics import correct_p_values
    from torch_bgdebias.probe.aggregate import compare_reports

    found: list[Tests | None] = []
    for report in reports[1:]:
        try:
            tests = compare_reports(report, reports[0])
        except ValueError:  # no image in common: there is nothing to pair, and the page says so
            found.append(None)
            continue
        corrected = correct_p_values([t.p_value for t in tests.values()])
        found.append({n: replace(t, p_value=float(p)) for (n, t), p in zip(tests.items(), corrected, strict=True)})
    return found


def pick_after(reports: Sequence[BackgroundBiasReport]) -> int | None:
    """Which report stands for "after": of those after the first, the most accurate on random backgrounds."""
    if len(reports) < 2:
        return None

    def merit(index: int) -> float:
        estimate = accuracy(reports[index], "mixed_rand") or accuracy(reports[index], "original")
        return estimate.value if is_known(estimate) else -1.0

    return max(range(1, len(reports)), key=merit)


def verdict(reports: Sequence[BackgroundBiasReport], tests: Sequence[Tests | None]) -> list[str]:
    """Sentences as HTML: what the first model loses, and what is left of that with the best of the others.

    An interval that holds zero is never called a bias, and one that is wide is said to be so.
    """
    first = reports[0]
    if not is_known(first.bg_gap):
        return [
            f"The BG-Gap of <b>{escape(first.model)}</b> is not known: the variants mixed_same and mixed_rand were not "
            "both measured."
        ]
    sentences = [_bias(first, confidence(reports))]
    after = pick_after(reports)
    if after is not None and is_known(reports[after].bg_gap):
        sentences.append(_change(first, reports[after], tests[after - 1], confidence(reports)))
    return sentences


def hero(reports: Sequence[BackgroundBiasReport], tests: Sequence[Tests | None]) -> str:
    """Verdict and headline figures, before and after where there are two models."""
    after = pick_after(reports)
    first = reports[0]
    figures = []
    if after is not None:
        second = reports[after]
        figures.append(_pair("BG-Gap", first.bg_gap, second.bg_gap, first.model, second.model, after, gap=True))
        old, new = accuracy(first, "mixed_rand"), accuracy(second, "mixed_rand")
        if is_known(old) and is_known(new):
            what = "Accuracy, random backgrounds"
            figures.append(_pair(what, old, new, first.model, second.model, after, gap=False))
    else:
        figures.append(_one("BG-Gap", first.bg_gap, 0, gap=True))
        for variant, told in (("mixed_same", "own class's backgrounds"), ("mixed_rand", "random backgrounds")):
            if variant in first.variants:
                figures.append(_one(f"Accuracy, {told}", accuracy(first, variant), 0, gap=False))
        figures = [f"<div class='change'>{''.join(figures)}</div>"]
    told = "".join(f"<p class='verdict'>{s}</p>" for s in verdict(reports, tests))
    return f"<div class='hero' id='verdict'>{''.join(figures)}{told}</div>"


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


def _change(before: BackgroundBiasReport, after: BackgroundBiasReport, tests: Tests | None, level: float) -> str:
    old, new = before.bg_gap, after.bg_gap
    assert is_known(old)
    assert is_known(new)
    name = f"<b>{escape(after.model)}</b>"
    ends = interval_of(new)
    told = f" ({100 * level:g}% interval {number(ends[0])} to {number(ends[1])})" if ends else ""
    shown = _shown(old, new, tests, level)
    if not shown:
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
    return sentence + _accuracy_change(before, after)


def _shown(old: Estimate, new: Estimate, tests: Tests | None, level: float) -> bool:
    """Whether the gaps differ beyond chance: by the paired test, or by intervals that do not overlap."""
    if tests is not None and "bg_gap" in tests:
        return tests["bg_gap"].p_value < 1 - level
    first, second = interval_of(old), interval_of(new)
    return first is not None and second is not None and (second[1] < first[0] or second[0] > first[1])


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


def _pair(
    what: str, old: Estimate | None, new: Estimate | None, first: str, second: str, colour: int, *, gap: bool
) -> str:
    return (
        f"<div class='change'>{_one(f'{what}: {first}', old, 0, gap=gap)}<div class='arrow' aria-hidden='true'>→</div>"
        f"{_one(f'{what}: {second}', new, colour, gap=gap)}</div>"
    )


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
