"""Data of the section on concepts: IoU of each concept on each background category."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch_bgdebias.metrics.statistics import Interval
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.concepts import ConceptFit, ConceptTable
from torch_bgdebias.probe.results.measurement import Measurement

__all__ = ["concepts_section"]

_METHODS = {"net2vec": "Net2Vec", "loce": "globalised LoCE"}
#: rows of the list of pairs
_SHOWN = 20


@dataclass(frozen=True)
class Mean:
    """A mean (``None``: not known) and its interval in words."""

    value: float | None
    between: str


@dataclass(frozen=True)
class ShadedCell:
    """One concept on one background; ``shade`` in [0, 0.45] is how dark the cell is."""

    value: float | None
    between: str
    shade: float
    n: int
    lost: bool


@dataclass(frozen=True)
class Pair:
    """A concept and a background on which it is found less well."""

    concept: str
    category: str
    original: float
    iou: float
    difference: float
    between: str
    relative_drop: float
    corrected: float


@dataclass(frozen=True)
class Fit:
    """Vectors fitted on one kind of backgrounds: IoU on the original and on other ones, cosine to the first fit."""

    condition: str
    means: tuple[Mean, Mean]
    cosine: float | None


@dataclass(frozen=True)
class Part:
    """One model, layer and method; ``model`` is empty on a page about one model."""

    model: str
    layer: str
    method: str
    n_lost: int
    n_pairs: int
    categories: list[str]
    rows: list[tuple[str, list[ShadedCell]]]
    pairs: list[Pair]
    fits: list[Fit]


def concepts_section(reports: Sequence[Measurement]) -> Section:
    """For every model, layer and method the IoU by background, the pairs that lose and the other fits."""
    parts = [_part(r.model if len(reports) > 1 else "", table) for r in reports for table in r.concepts]
    return Section("concepts.html", {"parts": parts}, anchor="concepts", heading="Concepts on other backgrounds")


def _part(model: str, table: ConceptTable) -> Part:
    biased = table.biased
    pairs = [
        Pair(r.concept, r.category, r.original.value, r.iou.value, r.difference.value, _between(r.difference),
             r.relative_drop, r.corrected)
        for r in biased[:_SHOWN]
    ]  # fmt: skip
    return Part(
        model=model,
        layer=table.layer,
        method=_METHODS.get(table.method, table.method),
        n_lost=len(biased),
        n_pairs=len(table.rows),
        categories=list(dict.fromkeys(row.category for row in table.rows)),
        rows=_rows(table),
        pairs=pairs,
        fits=[_fit(fit) for fit in table.fits],
    )


def _rows(table: ConceptTable) -> list[tuple[str, list[ShadedCell]]]:
    lost = {(row.concept, row.category) for row in table.biased}
    categories = list(dict.fromkeys(row.category for row in table.rows))
    by_pair = {(row.concept, row.category): row for row in table.rows}
    ious = [
        interval.value for row in table.rows for interval in (row.iou, row.original) if not math.isnan(interval.value)
    ]
    high = max([*ious, 1e-6])
    rows = []
    for concept in dict.fromkeys(row.concept for row in table.rows):
        cells = [_cell(by_pair[concept, categories[0]].original, high, lost=False)]
        cells += [_cell(by_pair[concept, k].iou, high, lost=(concept, k) in lost) for k in categories]
        rows.append((concept, cells))
    return rows


def _cell(interval: Interval, high: float, *, lost: bool) -> ShadedCell:
    value = _known(interval.value)
    shade = 0.0 if value is None else 0.45 * max(value, 0.0) / high
    return ShadedCell(value, _between(interval), shade, interval.n, lost)


def _fit(fit: ConceptFit) -> Fit:
    original, others = (Mean(_known(interval.value), _between(interval)) for interval in (fit.original, fit.others))
    return Fit(fit.condition, (original, others), _known(fit.mean_cosine))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _between(interval: Interval) -> str:
    return "" if math.isnan(interval.low) else f"{interval.low:.2f} to {interval.high:.2f}"
