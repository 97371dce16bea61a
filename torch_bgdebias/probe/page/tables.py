"""The tables of numbers in the HTML report: every figure at a glance, and class by class, with what changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from html import escape

from torch_bgdebias.probe.page import charts
from torch_bgdebias.probe.page.charts import interval_of, is_known, percent, points, spell
from torch_bgdebias.probe.page.sections import VARIANTS, accuracy, confidence, section
from torch_bgdebias.probe.results.comparison import Change, ModelComparison, told_p
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport, ClassResult, Estimate

__all__ = ["classes", "overview"]

Comparisons = Sequence[ModelComparison | None]
_SHORT = {"mixed_same": "Own backgrounds", "mixed_rand": "Random backgrounds", "original": "Accuracy"}
_SHORTER = {"mixed_same": "Own", "mixed_rand": "Random", "original": "Accuracy"}
_P_NOTE = "<sup><a href='#f7'>7</a></sup>"


def overview(reports: Sequence[BackgroundBiasReport], comparisons: Comparisons) -> str:
    """One row per figure, one column per model with intervals, and how the later models differ from the first."""
    rows = []
    for head, name, get, unit in _figures(reports):
        estimates = [get(r) for r in reports]
        if all(e is None for e in estimates):
            continue
        cells = [f"<td>{_figure(estimates[0], unit)}</td>"]
        for estimate, found in zip(estimates[1:], comparisons, strict=True):
            cells.append(f"<td>{_figure(estimate, unit)}</td>")
            cells.append(f"<td class='delta'>{_changed(found.figures.get(name) if found else None, unit)}</td>")
        rows.append(f"<tr><th scope='row'>{head}</th>{''.join(cells)}</tr>")
    heads = []
    for index, report in enumerate(reports):
        heads.append(f"<th scope='col'><i class='dot k{index % 6}'></i>{escape(report.model)}</th>")
        heads += ["<th scope='col' class='delta'>change</th>"] if index else []
    level = f"{100 * confidence(reports):g}%"
    note = f"Share of test images classified correctly, unless said otherwise, with {level} intervals."
    compared = any(c is not None for c in comparisons)
    if compared:
        note += f" Changes are against {reports[0].model}, on the images of both, with their own intervals."
    elif len(reports) > 1:
        note += " The models were not measured on the same images, so changes cannot be tested."
    table = f"<thead><tr><th></th>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    body = f"<p class='note'>{escape(note)}{_P_NOTE if compared else ''}</p>"
    shape = "glance many" if len(reports) > 1 else "glance"
    return section(
        "At a glance", f"{body}<div class='wide'><table class='{shape}'>{table}</table></div>", anchor="overview"
    )


def _figures(
    reports: Sequence[BackgroundBiasReport],
) -> list[tuple[str, str, Callable[[BackgroundBiasReport], Estimate | None], str]]:
    """Heading, name of its comparison, what stands under it, and its unit."""
    present = [v for v in VARIANTS if any(v in r.variants for r in reports)]
    mixed = next((v for v in ("mixed_rand", "mixed_next", "mixed_same") if v in present), None)
    rows: list[tuple[str, str, Callable[[BackgroundBiasReport], Estimate | None], str]] = [
        ("BG-Gap, points<sup><a href='#f1'>1</a></sup>", "bg_gap", _gap_of, "points")
    ]
    rows += [(VARIANTS[v].capitalize(), f"accuracy/{v}", partial(accuracy, variant=v), "%") for v in present]
    if mixed:
        for what, told, note, unit in (("decision", "Decisions", 3, "%"), ("feature", "Features", 4, "cosine")):
            name = f"{what}_consistency"
            head = f"{told} kept, {VARIANTS[mixed]}<sup><a href='#f{note}'>{note}</a></sup>"
            rows.append((head, f"{name}/{mixed}", partial(_of, mixed, name), unit))
    for name in dict.fromkeys(name for r in reports for name in r.scores):
        mark = "<sup><a href='#f5'>5</a></sup>" if name.startswith("pixel_ratio/") else ""
        told = name.replace("pixel_ratio/", "pixel ratio, ").replace("_", " ")
        rows.append((f"{escape(told[:1].upper() + told[1:])}{mark}", name, partial(_score_of, name), "cosine"))
    return rows


def classes(reports: Sequence[BackgroundBiasReport], comparisons: Comparisons = ()) -> str:
    """One sortable row per class: images, and per model the accuracies on own and random backgrounds and their gap.

    Later models have the tested change of the gap (of the accuracy, where no gap was measured) as a further column.
    """
    tables = [{c.label: c for c in r.per_class} for r in reports]
    labels = sorted({label for table in tables for label in table})
    shown = [v for v in ("mixed_same", "mixed_rand") if any(v in c.accuracy for t in tables for c in t.values())]
    shown = shown or ["original"]
    with_gap = any(is_known(c.bg_gap) for t in tables for c in t.values())
    level = confidence(reports)
    figure = "bg_gap" if with_gap else f"accuracy/{shown[-1]}"
    found = [None, *comparisons] if comparisons else [None] * len(reports)
    changes = [None if c is None else {k.label: k.changes.get(figure) for k in c.per_class} for c in found]
    rows = []
    for label in labels:
        first = next(t[label] for t in tables if label in t)
        cells = [_value(first.name, first.name, element="th scope='row'"), _value(first.n, f"{first.n:,}")]
        for index, (table, change) in enumerate(zip(tables, changes, strict=True)):
            meter = index if len(reports) < 3 else None
            cells += _class_cells(table.get(label), shown, with_gap=with_gap, meter=meter, level=level)
            cells += [] if change is None else [_class_change(change.get(label), level)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = "Click a heading to sort. Hover over a figure for its interval; classes with few images have wide ones."
    note += _class_note(reports, comparisons, figure)
    heads = _class_heads(reports, shown, with_gap, [c is not None for c in changes])
    table_ = f"<thead>{heads}</thead><tbody>{''.join(rows)}</tbody>"
    shape = "sortable narrow" if len(reports) > 1 else "sortable"
    return section(
        "Class by class",
        f"<p class='note'>{note}</p><div class='wide'><table class='{shape}'>{table_}</table></div>",
        anchor="classes",
    )


def _class_heads(
    reports: Sequence[BackgroundBiasReport], shown: Sequence[str], with_gap: bool, changed: Sequence[bool]
) -> str:
    """Two rows of headings: the models, and what stands in their columns."""
    heads, groups = [_sortable("Class", 0, "text"), _sortable("Images", 1, "number")], ["<th></th><th></th>"]
    short = _SHORT if len(reports) == 1 else _SHORTER
    for index, (report, with_change) in enumerate(zip(reports, changed, strict=True)):
        names = [short[v] for v in shown] + ["BG-Gap"] * with_gap + ["Change"] * with_change
        groups.append(
            f"<th class='group' colspan='{len(names)}'><i class='dot k{index % 6}'></i>{escape(report.model)}</th>"
        )
        heads += [
            _sortable(name, len(heads) + i, "number", style="first" if i == 0 else "") for i, name in enumerate(names)
        ]
    return f"<tr>{''.join(groups)}</tr><tr>{''.join(heads)}</tr>"


def _class_note(reports: Sequence[BackgroundBiasReport], comparisons: Comparisons, figure: str) -> str:
    found = [c for c in comparisons if c is not None]
    if not found:
        return ""
    what = "BG-Gap" if figure == "bg_gap" else "accuracy"
    tests = found[0].settings["tests"]["classes"].get(figure, 0)
    told = "; ".join(f"{len(c.changed_classes(figure))} of {len(c.per_class)} with {escape(c.second)}" for c in found)
    return (
        f" Change is that of the {what} against {escape(reports[0].model)}, with a p-value corrected for {tests} "
        f"tests{_P_NOTE}; bold where p &lt; {1 - confidence(reports):.2g}: {told}."
    )


def _class_cells(
    row: ClassResult | None, shown: Sequence[str], *, with_gap: bool, meter: int | None, level: float
) -> list[str]:
    cells = [_share(row.accuracy.get(v) if row else None, level, style="first" * (v == shown[0])) for v in shown]
    return [*cells, _gap(row.bg_gap if row else None, meter, level)] if with_gap else cells


def _class_change(change: Change | None, level: float) -> str:
    if change is None or not is_known(change.difference):
        return _value("", "not known")
    d = change.difference
    markup = f"<small>{escape(told_p(change.corrected))}</small>"
    style = "delta sure" if change.corrected < 1 - level else "delta"
    return _value(
        f"{d.value:.6f}", points(d.value), title=spell(d, points=True, confidence=level), markup=markup, style=style
    )


def _gap_of(report: BackgroundBiasReport) -> Estimate | None:
    return report.bg_gap


def _of(variant: str, what: str, report: BackgroundBiasReport) -> Estimate | None:
    found: Estimate | None = getattr(report.variants[variant], what) if variant in report.variants else None
    return found


def _score_of(name: str, report: BackgroundBiasReport) -> Estimate | None:
    return report.scores[name].mean if name in report.scores else None


def _figure(estimate: Estimate | None, unit: str) -> str:
    if not is_known(estimate):
        return "not known"
    spelled: Callable[[float], str] = _cosine if unit == "cosine" else charts.number
    told = {"points": points, "cosine": _cosine}.get(unit, _percent)(estimate.value)
    ends = interval_of(estimate)
    return told if ends is None else f"{told}<small>{spelled(ends[0])} to {spelled(ends[1])}</small>"


def _changed(change: Change | None, unit: str) -> str:
    """Difference, its interval and the corrected p-value; where nothing was compared, nothing."""
    if change is None or not is_known(change.difference):
        return ""
    spelled: Callable[[float], str] = _signed if unit == "cosine" else points
    ends = interval_of(change.difference)
    between = f"<small>{spelled(ends[0])} to {spelled(ends[1])}</small>" if ends else ""
    p = f"<small>{escape(told_p(change.corrected))}</small>"
    return f"{spelled(change.difference.value)}<span class='about'>{between}{p}</span>"


def _percent(value: float) -> str:
    return percent(value, 1)


def _cosine(value: float) -> str:
    return f"{value + 0.0:.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")


def _sortable(name: str, column: int, kind: str, *, style: str = "") -> str:
    named = f" class='{style}'" if style else ""
    return (
        f"<th scope='col' data-column='{column}' data-kind='{kind}' aria-sort='none'{named}>"
        f"<button type='button'>{escape(name)}</button></th>"
    )


def _value(value: object, text: str, *, title: str = "", markup: str = "", style: str = "", element: str = "td") -> str:
    """A cell: what it is sorted by, its text, and markup of our own behind that."""
    named = f" class='{style}'" if style else ""
    hover = f" title='{escape(title, quote=True)}'" if title else ""
    close = element.split()[0]
    return f"<{element} data-value='{escape(str(value), quote=True)}'{named}{hover}>{escape(text)}{markup}</{close}>"


def _share(estimate: Estimate | None, level: float, *, style: str) -> str:
    if not is_known(estimate):
        return _value("", "not known", style=style)
    title = spell(estimate, confidence=level)
    return _value(f"{estimate.value:.6f}", percent(estimate.value, 1), title=title, style=style)


def _gap(estimate: Estimate | None, meter: int | None, level: float) -> str:
    """The gap with a small bar in the model's colour, or without one where there are many columns."""
    if not is_known(estimate):
        return _value("", "not known")
    drawn = ""
    if meter is not None:
        width = 100 * min(1.0, max(0.0, estimate.value))
        drawn = f"<i class='k{meter % 6}' style='width:{width:.0f}%'></i>"
        drawn = f"<span class='meter' aria-hidden='true'>{drawn}</span>"
    title = spell(estimate, points=True, confidence=level)
    return _value(f"{estimate.value:.6f}", points(estimate.value), title=title, markup=drawn)
