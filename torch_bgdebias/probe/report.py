"""The report as one HTML file that needs nothing else: no network, no other file, no plotting package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from torch_bgdebias._version import __version__
from torch_bgdebias.probe.figures import report_figures
from torch_bgdebias.probe.page import pictures, sections, tables
from torch_bgdebias.probe.page.concept_section import concept_section
from torch_bgdebias.probe.page.pictures import Cell, ImageGrid
from torch_bgdebias.probe.page.verdict import hero
from torch_bgdebias.probe.results.comparison import ModelComparison, compare_models
from torch_bgdebias.probe.results.measurement import BackgroundBiasReport
from torch_bgdebias.writing import write_text

__all__ = ["Cell", "ImageGrid", "report_figures", "report_html", "report_to_html"]


def report_to_html(
    reports: Sequence[BackgroundBiasReport],
    path: str | Path,
    *,
    title: str = "Background bias report",
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    grids: Sequence[ImageGrid] | None = None,
    settings: Mapping[str, Any] | None = None,
    comparisons: Sequence[ModelComparison | None] | None = None,
) -> Path:
    """Write one page about one model, or about several side by side; the first one is "before".

    Args:
        reports: at least one; with several, all should come from the same test images.
        path: the file to write; its folder must exist.
        title: heading and title of the page.
        curves: training curves: panel -> model -> one value per epoch. Fractions are drawn in percent, unless the
            panel is called a loss or a value is above 1.
        grids: tables of pictures, shown in this order.
        settings: further settings to list, such as the command and its arguments.
        comparisons: what :func:`torch_bgdebias.probe.compare_models` gave for these reports; made when ``None``.

    Returns:
        ``path``.

    Raises:
        ValueError: no report.
        OSError: the file cannot be written.
    """
    path = Path(path)
    page = report_html(reports, title=title, curves=curves, grids=grids, settings=settings, comparisons=comparisons)
    write_text(path, page)
    return path


def report_html(
    reports: Sequence[BackgroundBiasReport],
    *,
    title: str = "Background bias report",
    curves: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    grids: Sequence[ImageGrid] | None = None,
    settings: Mapping[str, Any] | None = None,
    comparisons: Sequence[ModelComparison | None] | None = None,
) -> str:
    """The page that :func:`report_to_html` writes, as text."""
    if not reports:
        raise ValueError("reports: expected at least one BackgroundBiasReport, got none")
    compared = compare_models(reports) if comparisons is None else comparisons
    parts = [sections.header(title, reports), hero(reports, compared), tables.overview(reports, compared)]
    parts.append(sections.variants(reports))
    parts += [pictures.grid(g, anchor=f"grid-{i}") for i, g in enumerate(grids or (), start=1)]
    if curves:
        parts.append(sections.curves(curves, reports))
    parts.append(tables.classes(reports, compared))
    if any(r.scores for r in reports):
        parts.append(sections.scores(reports))
    if any(r.concepts for r in reports):
        parts.append(concept_section(reports))
    parts += [pictures.examples(r) for r in reports if r.examples]
    parts += [sections.settings(reports, settings), sections.footnotes(reports)]
    parts.append(f"<footer>Written by torch_bgdebias {escape(__version__)}.</footer>")
    slots = {"version": escape(__version__, quote=True), "title": escape(title), "body": "\n".join(parts)}
    return _filled(_resource("template.html"), {**slots, **{k: _resource(f"template.{k}") for k in ("css", "js")}})


def _resource(name: str) -> str:
    return (files("torch_bgdebias.probe.page") / name).read_text(encoding="utf-8")


def _filled(template: str, slots: Mapping[str, str]) -> str:
    """Put each slot in its place; what a slot holds is never searched for further slots."""
    done, rest = [], template
    while True:
        before, mark, rest = rest.partition("{{")
        done.append(before)
        if not mark:
            return "".join(done)
        name, _, rest = rest.partition("}}")
        done.append(slots[name])
