"""The report's section on concepts: IoU of each concept on each background category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.concepts import ConceptBackground, biased_pairs
from torch_bgdebias.probe.sections import section

__all__ = ["concept_section"]


def concept_section(layers: Mapping[str, Sequence[ConceptBackground]], *, level: float = 0.05) -> str:
    """HTML: one table a layer, concepts in rows and categories in columns, and the pairs that lose."""
    parts = [
        "<p>A concept vector is fitted to each class on its original pictures (Net2Vec) and tested on others, on their "
        "own backgrounds and pasted on each category. IoU with the 95 % interval in the tooltip; bold: at "
        f"least 5 % lower than on original backgrounds, paired permutation test, Holm-corrected p &le; {level:g}.</p>"
    ]
    for layer, rows in layers.items():
        lost = {(row.concept, row.category) for row in biased_pairs(list(rows), level=level)}
        categories = list(dict.fromkeys(row.category for row in rows))
        by = {(row.concept, row.category): row for row in rows}
        head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in ["Concept", "original", *categories])
        lines = []
        for concept in dict.fromkeys(row.concept for row in rows):
            cells = [_cell(by[concept, categories[0]].original, False)]
            cells += [_cell(by[concept, k].iou, (concept, k) in lost) for k in categories]
            lines.append(f"<tr><th scope='row'>{escape(concept)}</th>{''.join(cells)}</tr>")
        parts.append(f"<h3>Layer {escape(layer)}: {len(lost)} of {len(rows)} pairs lose</h3>")
        parts.append(
            f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        )
    return section("Concepts on other backgrounds", "\n".join(parts), anchor="concepts")


def _cell(value: Interval, lost: bool) -> str:
    if math.isnan(value.value):
        return "<td title='masks smaller than one activation pixel'>&ndash;</td>"
    text = f"{value.value:.2f}"
    shown = f"<strong>{text}</strong>" if lost else text
    return f"<td title='{value.low:.2f} to {value.high:.2f}, {value.n} images'>{shown}</td>"
