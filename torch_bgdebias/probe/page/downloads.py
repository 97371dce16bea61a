"""The figures of a page as embedded files (data URIs), which can be saved without network access."""

from __future__ import annotations

import base64
import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.comparison import ModelComparison
from torch_bgdebias.probe.results.layout import plain
from torch_bgdebias.probe.results.measurement import ClassResult, Estimate, Measurement

__all__ = ["FIGURES_SCHEMA", "classes_csv", "downloads_section", "figures_json"]

#: name and version of the layout of ``figures.json``
FIGURES_SCHEMA = "torch_bgdebias.figures/1"
_HEAD = ["model", "grouped by", "part", "images", "figure", "value", "low", "high", "p corrected"]
#: left out of the JSON: results of every image and pictures (report.json has them); tables of parts are in the CSV
_ELSEWHERE = frozenset(("images", "examples", "per_class", "per_group"))
#: a spreadsheet would run what begins so
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Download:
    """A file: its name, a description, and its contents as a data URI."""

    name: str
    description: str
    source: str
    size: str


def downloads_section(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> Section:
    """The figures as JSON and the table of classes and groups as CSV."""
    files = [
        _download("classes.csv", "every class and group, with intervals", "text/csv", classes_csv(reports)),
        _download("figures.json", "all figures, tests, settings", "application/json",
                  figures_json(reports, comparisons)),
    ]  # fmt: skip
    return Section("downloads.html", {"files": files}, anchor="data", heading="The data")


def classes_csv(reports: Sequence[Measurement]) -> str:
    """One line for each model, class or group, and figure; the whole measurement is the part ``all``.

    Fractions are fractions. Names that a spreadsheet would take for a formula begin with an apostrophe.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_HEAD)
    for report in reports:
        for grouping, name, count, figure, estimate, p in _lines(report):
            values = (estimate.value, estimate.low, estimate.high, p)
            numbers = [f"{value:.6g}" if math.isfinite(value) else "" for value in values]
            texts = [_escape_formula(text) for text in (report.model, grouping, name)]
            writer.writerow([*texts, count, figure, *numbers])
    return table.getvalue()


def figures_json(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> str:
    """What the page says of whole models, as strict JSON (NaN as ``null``)."""
    models = [
        {field.name: plain(getattr(r, field.name)) for field in dataclasses.fields(Measurement)
         if field.name not in _ELSEWHERE}
        for r in reports
    ]  # fmt: skip
    dicts = [None if c is None else c.to_dict() for c in comparisons]
    compared = [None if c is None else {k: v for k, v in c.items() if k != "per_class"} for c in dicts]
    return json.dumps({"schema": FIGURES_SCHEMA, "models": models, "comparisons": compared}, allow_nan=False, indent=1)


def _lines(report: Measurement) -> Iterator[tuple[str, str, int, str, Estimate, float]]:
    """Grouping, part, images, figure, its estimate and p-value."""
    for variant, result in report.variants.items():
        yield "", "all", len(report.images), f"accuracy/{variant}", result.accuracy, math.nan
    if report.bg_gap is not None:
        yield "", "all", len(report.images), "bg_gap", report.bg_gap, math.nan
    class_word = "class" if report.images.targets is None else "label"
    for grouping, rows in ((class_word, report.per_class), *report.per_group.items()):
        for row in rows:
            for figure, estimate in _figures(row):
                p = row.gap_p if figure == "bg_gap" else math.nan
                yield grouping, row.name, row.n, figure, estimate, p


def _figures(row: ClassResult) -> Iterator[tuple[str, Estimate]]:
    yield from ((f"accuracy/{variant}", estimate) for variant, estimate in row.accuracy.items())
    if row.bg_gap is not None:
        yield "bg_gap", row.bg_gap


def _escape_formula(name: str) -> str:
    return f"'{name}" if name.startswith(_FORMULA) else name


def _download(name: str, description: str, kind: str, text: str) -> Download:
    encoded = text.encode("utf-8", errors="replace")
    source = f"data:{kind};charset=utf-8;base64,{base64.b64encode(encoded).decode('ascii')}"
    size = f"{len(encoded) / 1000:,.0f} kB" if len(encoded) >= 1000 else f"{len(encoded)} bytes"
    return Download(name, description, source, size)
