"""Data of the tables of numbers: the overview of all figures, and the table of classes with its changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch_bgdebias.probe.page.bars import ForestBar, Scale, forest_bar, forest_scale
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.comparison import Change, ModelComparison
from torch_bgdebias.probe.results.measurement import JUDGED, ClassResult, Estimate, Measurement, VariantResult
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, interval_of, is_known, number, p_words, percent, points
from torch_bgdebias.probe.results.summary import by_gap, may_be_chance, worst_sentence

__all__ = ["classes_section", "overview_section"]

Comparisons: TypeAlias = Sequence[ModelComparison | None]
_SHORT = {"mixed_same": "Own backgrounds", "mixed_rand": "Random backgrounds", "original": "Accuracy"}
_SHORTER = {"mixed_same": "Own", "mixed_rand": "Random", "original": "Accuracy"}


@dataclass(frozen=True)
class Figure:
    """A row of the overview.

    Attributes:
        head: what it is called.
        name: what its comparison is called.
        get: the estimate of a model.
        unit: ``"points"``, ``"%"`` or ``"cosine"``.
        note: name of its footnote.
    """

    head: str
    name: str
    get: Callable[[Measurement], Estimate | None]
    unit: str
    note: str = ""


@dataclass(frozen=True)
class ChangeCell:
    """A difference, its interval and the corrected p-value."""

    value: str
    between: str
    p: str


@dataclass(frozen=True)
class OverviewCell:
    """A figure with its interval, and its change against the first model."""

    value: str
    between: str = ""
    change: ChangeCell | None = None


@dataclass(frozen=True)
class OverviewRow:
    """A figure of every model."""

    head: str
    note: str
    cells: Sequence[OverviewCell]


def overview_section(reports: Sequence[Measurement], comparisons: Comparisons) -> Section:
    """One row per figure, one column per model with intervals, and how the later models differ from the first."""
    rows = []
    for figure in _figures(reports):
        estimates = [figure.get(r) for r in reports]
        if all(e is None for e in estimates):
            continue
        cells = [_figure_cell(estimates[0], figure.unit)]
        for estimate, comparison in zip(estimates[1:], comparisons, strict=True):
            change = comparison.figures.get(figure.name) if comparison else None
            cells.append(_figure_cell(estimate, figure.unit, change))
        rows.append(OverviewRow(figure.head, figure.note, cells))
    level = f"{100 * reports[0].confidence:g}%"
    counted_things = "test images" if reports[0].images.targets is None else "labels of test images"
    note = f"Share of {counted_things} classified correctly, unless said otherwise, with {level} intervals."
    compared = any(c is not None for c in comparisons)
    if compared:
        note += f" Changes are against {reports[0].model}, on the images of both, with their own intervals."
        refused = list(dict.fromkeys(name for c in comparisons if c is not None for name in c.refused))
        note += "".join(f" {name} was measured at other settings and is not compared." for name in refused)
    elif len(reports) > 1:
        note += " The models were not measured on the same images, so changes cannot be tested."
    models = [r.model for r in reports]
    data = {"note": note, "compared": compared, "models": models, "rows": rows}
    return Section("overview.html", data, anchor="overview", heading="At a glance")


@dataclass(frozen=True)
class ClassCell:
    """A cell of the class table: what it is sorted by, its text, the lines under it, and a bar."""

    value: str
    text: str
    small: Sequence[str] = ()
    style: str = ""
    bar: ForestBar | None = None


@dataclass(frozen=True)
class ClassRow:
    """A class: its name, then its figures."""

    name: ClassCell
    cells: Sequence[ClassCell]


@dataclass(frozen=True)
class HeadGroup:
    """The headings of one model's columns."""

    model: str
    heads: Sequence[str]


@dataclass(frozen=True)
class ClassChanges:
    """What the note above the class table says of the column of changes."""

    what: str
    first: str
    tests: int
    level: str
    counts: str


def classes_section(
    reports: Sequence[Measurement], comparisons: Comparisons = (), *, grouping: str | None = None
) -> Section:
    """One sortable row per class, or per group: the accuracies on own and random backgrounds and their gap.

    The largest gap of the first model comes first. Later models have the tested change of the gap (of the accuracy,
    where no gap was measured) as a further column; of more than two models it stands under the gap, and accuracy on own
    backgrounds is left to the file of the data, so that all fit beside each other.
    """
    tables = [{c.name if grouping else c.label: c for c in rows_of(r, grouping)} for r in reports]
    variants = [v for v in ("mixed_same", "mixed_rand") if any(v in c.accuracy for t in tables for c in t.values())]
    more_than_two = len(reports) > 2
    variants = (variants[-1:] if more_than_two else variants) or ["original"]
    with_gap = any(is_known(c.bg_gap) for t in tables for c in t.values())
    level = reports[0].confidence
    figure = "bg_gap" if with_gap else f"accuracy/{variants[-1]}"
    by_model = [None, *comparisons] if comparisons and not grouping else [None] * len(reports)
    changes = [None if c is None else {k.label: k.changes.get(figure) for k in c.per_class} for c in by_model]
    scale = forest_scale([c.bg_gap for t in tables for c in t.values()])
    rows = []
    for key, row in _rows_by_gap(tables):
        cells = [ClassCell(str(row.n), f"{row.n:,}")]
        for index, (table, change) in enumerate(zip(tables, changes, strict=True)):
            change_cell = None if change is None else _class_change(change.get(row.label), level)
            model_cells = _class_cells(table.get(key), variants, scale if with_gap else None, index, level)
            if change_cell is not None and not more_than_two:
                model_cells.append(change_cell)
            elif change_cell is not None and change_cell.value:
                under = (*model_cells[0].small, f"change {change_cell.text}", *change_cell.small[-1:])
                style = f"{model_cells[0].style} moved" if "sure" in change_cell.style else model_cells[0].style
                model_cells[0] = dataclasses.replace(model_cells[0], small=under, style=style)
            cells += model_cells
        rows.append(ClassRow(ClassCell(row.name, row.name), cells))
    short = _SHORT if len(reports) == 1 else _SHORTER
    groups = [
        HeadGroup(
            r.model,
            ["BG-Gap"] * with_gap + [short[v] for v in variants] + ["Change"] * (c is not None and not more_than_two),
        )
        for r, c in zip(reports, changes, strict=True)
    ]
    words = _class_words(reports, grouping)
    return Section(
        "classes.html",
        {
            **words,
            "rows": rows,
            "groups": groups,
            "with_gap": with_gap,
            "level": f"{100 * level:g}%",
            "changes": None if grouping else _class_changes(reports, comparisons, figure),
        },
        anchor=words["anchor"],
        heading=words["title"],
    )


def rows_of(report: Measurement, grouping: str | None) -> list[ClassResult]:
    """The classes of a report, or the groups of one grouping."""
    return report.per_class if grouping is None else report.per_group.get(grouping, [])


def _rows_by_gap(tables: Sequence[dict[int | str, ClassResult]]) -> list[tuple[int | str, ClassResult]]:
    """Every class or group with its row in the first model that has it, the largest gap of the first model first."""
    rows = [(key, row) for number, table in enumerate(tables) for key, row in table.items()
            if not any(key in earlier for earlier in tables[:number])]  # fmt: skip
    rank = {id(row): position for position, row in enumerate(by_gap(list(tables[0].values())))}
    return sorted(rows, key=lambda item: rank.get(id(item[1]), len(rows)))


def _class_words(reports: Sequence[Measurement], grouping: str | None) -> dict[str, Any]:
    """Heading, what a row is called, and what is said of the worst one of each model."""
    has_label_sets = reports[0].images.targets is not None
    row_word = grouping or ("label" if has_label_sets else "class")
    groupings = list(dict.fromkeys(name for r in reports for name in r.per_group))
    worst = [r.worst_group.get(grouping) if grouping else r.worst_class for r in reports]
    spelled = [
        (r.model if len(reports) > 1 else "", worst_sentence(w, row_word, r.confidence))
        for r, w in zip(reports, worst, strict=True)
        if w
    ]
    return {
        "title": f"By {grouping}" if grouping else "Label by label" if has_label_sets else "Class by class",
        "anchor": f"group-{groupings.index(grouping) + 1}" if grouping else "classes",
        "head": row_word.capitalize(),
        "sets": has_label_sets and not grouping,
        "worst": spelled,
    }


def _figures(reports: Sequence[Measurement]) -> list[Figure]:
    variants = [v for v in VARIANT_WORDS if any(v in r.variants for r in reports)]
    mixed = next((v for v in ("mixed_rand", "mixed_next", "mixed_same") if v in variants), None)
    rows = [Figure("BG-Gap, points", "bg_gap", lambda r: r.bg_gap, "points", "gap")]
    rows += [
        Figure(VARIANT_WORDS[v].capitalize(), f"accuracy/{v}", partial(Measurement.accuracy, variant=v), "%")
        for v in variants
    ]
    if any(r.images.targets is not None for r in reports):
        rows += [
            Figure(
                f"All labels right, {VARIANT_WORDS[v]}",
                f"exact_match/{v}",
                _of_variant(v, lambda result: result.exact_match),
                "%",
            )
            for v in JUDGED
            if v in variants
        ]
    if mixed:
        decisions = _of_variant(mixed, lambda result: result.decision_consistency)
        features = _of_variant(mixed, lambda result: result.feature_consistency)
        words = VARIANT_WORDS[mixed]
        rows.append(Figure(f"Decisions kept, {words}", f"decision_consistency/{mixed}", decisions, "%", "decisions"))
        rows.append(Figure(f"Features kept, {words}", f"feature_consistency/{mixed}", features, "cosine", "features"))
    for name in dict.fromkeys(name for r in reports for name in r.scores):
        title = name.replace("pixel_ratio/", "pixel ratio, ").replace("_", " ")
        note = "pixel_ratio" if name.startswith("pixel_ratio/") else ""
        rows.append(Figure(title[:1].upper() + title[1:], name, partial(_score, name), "cosine", note))
    return rows


def _of_variant(
    variant: str, read: Callable[[VariantResult], Estimate | None]
) -> Callable[[Measurement], Estimate | None]:
    return lambda report: read(report.variants[variant]) if variant in report.variants else None


def _score(name: str, report: Measurement) -> Estimate | None:
    return report.scores[name].mean if name in report.scores else None


def _class_changes(reports: Sequence[Measurement], comparisons: Comparisons, figure: str) -> ClassChanges | None:
    compared = [c for c in comparisons if c is not None]
    if not compared:
        return None
    return ClassChanges(
        what="BG-Gap" if figure == "bg_gap" else "accuracy",
        first=reports[0].model,
        tests=compared[0].settings["tests"]["classes"].get(figure, 0),
        level=f"{1 - reports[0].confidence:.2g}",
        counts="; ".join(f"{len(c.changed_classes(figure))} of {len(c.per_class)} with {c.second}" for c in compared),
    )


def _class_cells(
    row: ClassResult | None, variants: Sequence[str], scale: Scale | None, colour: int, level: float
) -> list[ClassCell]:
    """A model's cells, without the change: its gap where there is one (``scale``), and its accuracies."""
    cells = [] if scale is None else [_gap_cell(row, scale, colour, level)]
    cells += [_share_cell(row.accuracy.get(v) if row else None) for v in variants]
    return [dataclasses.replace(cells[0], style=f"first {cells[0].style}".strip()), *cells[1:]]


def _share_cell(estimate: Estimate | None) -> ClassCell:
    if not is_known(estimate):
        return ClassCell("", "not known")
    return ClassCell(f"{estimate.value:.6f}", percent(estimate.value, 1), _between(estimate))


def _gap_cell(row: ClassResult | None, scale: Scale, colour: int, level: float) -> ClassCell:
    """The gap with its interval, and a bar in the model's colour to its side of 0; pale where it may be chance."""
    estimate = None if row is None else row.bg_gap
    if row is None or not is_known(estimate):
        return ClassCell("", "not known", style="gap")
    chance = may_be_chance(row, level)
    bar = forest_bar(estimate, scale, colour, sure=not chance)
    small = (*_between(estimate), *(["may be chance"] if chance else []))
    return ClassCell(f"{estimate.value:.6f}", points(estimate.value), small, "gap chance" if chance else "gap", bar)


def _class_change(change: Change | None, level: float) -> ClassCell:
    if change is None or not is_known(change.difference):
        return ClassCell("", "not known")
    estimate, style = change.difference, "delta sure" if change.corrected < 1 - level else "delta"
    return ClassCell(
        f"{estimate.value:.6f}", points(estimate.value), (*_between(estimate), p_words(change.corrected)), style
    )


def _between(estimate: Estimate) -> tuple[str, ...]:
    ends = interval_of(estimate)
    return (f"{number(ends[0])} to {number(ends[1])}",) if ends else ()


def _figure_cell(estimate: Estimate | None, unit: str, change: Change | None = None) -> OverviewCell:
    change_cell = _change_cell(change, unit)
    if not is_known(estimate):
        return OverviewCell("not known", change=change_cell)
    format_end = _cosine if unit == "cosine" else number
    value = {"points": points, "cosine": _cosine}.get(unit, _percent)(estimate.value)
    ends = interval_of(estimate)
    return OverviewCell(value, f"{format_end(ends[0])} to {format_end(ends[1])}" if ends else "", change_cell)


def _change_cell(change: Change | None, unit: str) -> ChangeCell | None:
    """Nothing where nothing was compared."""
    if change is None or not is_known(change.difference):
        return None
    format_change = _signed if unit == "cosine" else points
    ends = interval_of(change.difference)
    between = f"{format_change(ends[0])} to {format_change(ends[1])}" if ends else ""
    return ChangeCell(format_change(change.difference.value), between, p_words(change.corrected))


def _percent(value: float) -> str:
    return percent(value, 1)


def _cosine(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")
