"""Data of the first screen: verdict, size of the gap, classes concerned, evidence, next steps, issues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_bgdebias.probe.page.bars import ForestBar, forest_bar, forest_scale
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.advice import Step, evidence, next_steps, shown_classes, which_classes
from torch_bgdebias.probe.results.comparison import ModelComparison
from torch_bgdebias.probe.results.gaps import cost_sentence
from torch_bgdebias.probe.results.issues import Issue, issues
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, Sentence, interval_of, is_known, number, points
from torch_bgdebias.probe.results.verdict import shown_models, verdict

__all__ = ["how_section", "is_grave", "issues_section", "verdict_section"]

_CARD_WORDS = {"mixed_rand": "random backgrounds", "original": "images as they are"}
#: classes on the first screen, of each of one or two models, and of more
_CLASSES, _CLASSES_OF_MANY = 5, 3


@dataclass(frozen=True)
class Card:
    """A headline figure."""

    what: str
    value: str
    unit: str
    between: str
    colour: int


@dataclass(frozen=True)
class CardRow:
    """Headline figures beside each other, with an arrow behind the first where models are compared."""

    cards: Sequence[Card]
    arrow: bool


@dataclass(frozen=True)
class ClassLine:
    """A class whose gap is shown: name, gap with interval, and its bar."""

    name: str
    gap: str
    between: str
    bar: ForestBar | None


@dataclass(frozen=True)
class ClassList:
    """The classes of one model whose gap is shown, the largest ones; ``more`` are not listed."""

    model: str
    line: str
    classes: Sequence[ClassLine]
    more: int


def verdict_section(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> Section:
    """Headline figures and the four questions that a reader comes with, of one model or of several."""
    sentences: list[Sentence] = verdict(reports, comparisons)
    indices = [0, *shown_models(reports)]
    with_gap = [i for i in indices if is_known(reports[i].bg_gap)]
    steps: list[Step] = next_steps(reports, comparisons)
    if any(issue.grave for issue in issues(reports, comparisons)):
        steps = [Step("First mend what stands above in red: until then these figures may say nothing.", None), *steps]
    return Section(
        "verdict.html",
        {
            "rows": _card_rows(reports, comparisons),
            "sentences": sentences,
            "classes": _class_lists(reports, with_gap),
            "evidence": evidence(reports[0]) if with_gap else "",
            "steps": steps,
        },
        anchor="verdict",
        heading="Verdict",
    )


def issues_section(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> Section | None:
    """What speaks against relying on the figures, each with its remedy; ``None`` where nothing does."""
    all_issues: list[Issue] = issues(reports, comparisons)
    return (
        Section("issues.html", {"issues": all_issues}, anchor="issues", heading="Before you rely on it")
        if all_issues
        else None
    )


def is_grave(doubts: Section | None) -> bool:
    """Whether the section of issues holds something that makes the figures mean nothing: then it goes first."""
    return doubts is not None and any(issue.grave for issue in doubts.data["issues"])


def how_section(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> Section:
    """How to do what the first screen says: the instructions that its steps name, in their order."""
    instructions = list(dict.fromkeys([step.how for step in next_steps(reports, comparisons) if step.how] + ["again"]))
    return Section(
        "how.html", {"shown": instructions, "model": reports[0].model}, anchor="how", heading="What to do, and how"
    )


def _card_rows(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> list[CardRow]:
    first, later = reports[0], [(i, reports[i]) for i in shown_models(reports)]
    if not later:
        cards = [_card("BG-Gap", first.bg_gap, 0, gap=True)]
        for variant in ("mixed_same", "mixed_rand"):
            if variant in first.variants:
                cards.append(_card(f"Accuracy, {VARIANT_WORDS[variant]}", first.accuracy(variant), 0, gap=False))
        return [CardRow(cards, arrow=False)]
    models = [(0, first), *later]
    rows = [CardRow([_card(f"BG-Gap: {r.model}", r.bg_gap, i, gap=True) for i, r in models], arrow=True)]
    also = ["mixed_rand"]
    if any(c is not None and cost_sentence(*c.changes_of_accuracy()) for c in comparisons):
        also.append("original")  # what a smaller gap costs is seen at once
    for variant in also:
        if all(is_known(r.accuracy(variant)) for _, r in models):
            title = f"Accuracy, {_CARD_WORDS[variant]}"
            cards = [_card(f"{title}: {r.model}", r.accuracy(variant), i, gap=False) for i, r in models]
            rows.append(CardRow(cards, arrow=True))
    return rows


def _class_lists(reports: Sequence[Measurement], indices: Sequence[int]) -> list[ClassList]:
    """The classes of some models, all on one scale."""
    classes_of = {i: shown_classes(reports[i]) for i in indices}
    listed = {i: rows[: _CLASSES if len(indices) < 3 else _CLASSES_OF_MANY] for i, rows in classes_of.items()}
    scale = forest_scale([row.bg_gap for rows in listed.values() for row in rows])
    lists = []
    for i, rows in listed.items():
        lines = [
            ClassLine(row.name, points(gap.value), _between(gap), forest_bar(gap, scale, i, sure=True))
            for row in rows
            if is_known(gap := row.bg_gap)
        ]
        name = reports[i].model if len(reports) > 1 else ""
        lists.append(ClassList(name, which_classes(reports[i]), lines, len(classes_of[i]) - len(rows)))
    return lists


def _card(title: str, estimate: Estimate | None, colour: int, *, gap: bool) -> Card:
    unit = "points" if gap else "%"
    if not is_known(estimate):
        return Card(title, "?", unit, "not known", colour)
    value = points(estimate.value) if gap else f"{100 * estimate.value:.1f}"
    return Card(title, value, unit, _between(estimate) or "no interval", colour)


def _between(estimate: Estimate) -> str:
    ends = interval_of(estimate)
    return f"{number(ends[0])} to {number(ends[1])}" if ends else ""
