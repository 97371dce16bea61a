"""The report's section on concepts: IoU of each concept on each background category, as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.page.sections import section
from torch_bgdebias.probe.results.concepts import ConceptBackground, ConceptFit, ConceptTable
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport

__all__ = ["concept_section"]

_METHODS = {"net2vec": "Net2Vec", "loce": "globalised LoCE"}
#: rows of the list of pairs
_SHOWN = 20


def concept_section(reports: Sequence[BackgroundBiasReport]) -> str:
    """HTML: for every model, layer and method the IoU by background, the pairs that lose and the other fits."""
    parts = [
        "<p class='note'>A concept vector segments a class in a layer. It is fitted on pictures with their own "
        "backgrounds and tested on other pictures, as they are and pasted on each background. In the cells: IoU, "
        "darker is higher, with its interval; red: at least 5 % lower than on original backgrounds, paired "
        "permutation test, p &le; 0.05 after correction for all cells of the table.</p>"
    ]
    for report in reports:
        for table in report.concepts:
            whose = f"{escape(report.model)}: " if len(reports) > 1 else ""
            method = _METHODS.get(table.method, table.method)
            parts.append(
                f"<h3>{whose}{escape(table.layer)}, {escape(method)}: "
                f"{len(table.biased)} of {len(table.rows)} pairs lose</h3>"
            )
            parts += [_by_background(table), _pairs(table.biased), _fits(table.fits)]
    return section("Concepts on other backgrounds", "\n".join(parts), anchor="concepts")


def _by_background(table: ConceptTable) -> str:
    lost = {(row.concept, row.category) for row in table.biased}
    categories = list(dict.fromkeys(row.category for row in table.rows))
    by = {(row.concept, row.category): row for row in table.rows}
    every = [x.value for row in table.rows for x in (row.iou, row.original) if not math.isnan(x.value)]
    high = max([*every, 1e-6])
    lines = []
    for concept in dict.fromkeys(row.concept for row in table.rows):
        cells = [_cell(by[concept, categories[0]].original, high, False)]
        cells += [_cell(by[concept, k].iou, high, (concept, k) in lost) for k in categories]
        lines.append(f"<tr><th scope='row'>{escape(concept)}</th>{''.join(cells)}</tr>")
    return _table(["Concept", "original", *categories], lines, kind="shaded")


def _cell(value: Interval, high: float, lost: bool) -> str:
    if math.isnan(value.value):
        return "<td title='masks smaller than one activation pixel'>&ndash;</td>"
    shade = f" style='background: rgba(11, 111, 184, {0.45 * max(value.value, 0) / high:.2f})'"
    text = f"<strong class='loss'>{value.value:.2f}</strong>" if lost else f"{value.value:.2f}"
    return f"<td{shade} title='{value.n} images'>{text}<small>{_range(value)}</small></td>"


def _pairs(pairs: Sequence[ConceptBackground]) -> str:
    if not pairs:
        return ""
    lines = [
        f"<tr><th scope='row'>{escape(r.concept)} on {escape(r.category)}</th><td>{r.original.value:.2f}</td>"
        f"<td>{r.iou.value:.2f}</td><td>{r.difference.value:+.2f}<small>{_range(r.difference)}</small></td>"
        f"<td>{100 * r.relative_drop:.0f} %</td><td>{r.corrected:.2g}</td></tr>"
        for r in pairs[:_SHOWN]
    ]
    heads = ["Pairs that lose", "original", "on it", "difference", "relative drop", "corrected p"]
    more = f"<p class='note'>{len(pairs) - _SHOWN} more.</p>" if len(pairs) > _SHOWN else ""
    return _table(heads, lines) + more


def _fits(fits: Sequence[ConceptFit]) -> str:
    lines = [
        f"<tr><th scope='row'>{escape(fit.condition)} backgrounds</th>{_mean(fit.original)}{_mean(fit.others)}"
        f"<td>{_two(fit.mean_cosine)}</td></tr>"
        for fit in fits
    ]
    heads = ["Vectors fitted on", "IoU on original", "IoU on other backgrounds", "cosine to those fitted on original"]
    return _table(heads, lines)


def _mean(value: Interval) -> str:
    small = "" if math.isnan(value.value) else f"<small>{_range(value)}</small>"
    return f"<td>{_two(value.value)}{small}</td>"


def _two(value: float) -> str:
    return "&ndash;" if math.isnan(value) else f"{value:.2f}"


def _range(value: Interval) -> str:
    return "" if math.isnan(value.low) else f"{value.low:.2f} to {value.high:.2f}"


def _table(heads: Sequence[str], lines: Sequence[str], kind: str = "") -> str:
    head = "".join(f"<th scope='col'>{escape(name).replace('_', '_<wbr>')}</th>" for name in heads)
    named = f" class='{kind}'" if kind else ""
    body = "".join(lines)
    return f"<div class='wide concepts'><table{named}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
