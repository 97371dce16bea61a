"""Data of the simpler sections of the page: header, charts, settings, footnotes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch_bgdebias.names import OBJECTLESS_VARIANTS
from torch_bgdebias.probe.page import charts
from torch_bgdebias.probe.page.charts import Chart
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.measurement import Measurement
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, interval_of, is_known, percent

__all__ = ["curves_section", "footnotes_section", "gaps_section", "header", "scores_section", "settings_section",
           "variants_section"]  # fmt: skip

_COUNTED = {
    "images": "test images",
    "units": "independent units",
    "classes": "classes",
    "labels": "labels",
    "backgrounds": "test backgrounds",
}
_ABSENT = object()


def header(title: str, reports: Sequence[Measurement]) -> Section:
    """Title and what was measured."""
    counts = reports[0].counts
    count_words = [f"{counts[key]:,} {noun}" for key, noun in _COUNTED.items() if counts.get(key)]
    models = ", ".join(r.model for r in reports)
    return Section("header.html", {"title": title, "line": " · ".join([*count_words, models])})


@dataclass(frozen=True)
class Drawn:
    """A chart as it is drawn on wide pages, and on narrow ones."""

    wide: Chart
    narrow: Chart


def gaps_section(reports: Sequence[Measurement]) -> Section | None:
    """The models' gaps on one scale; ``None`` where none is known."""
    if not any(is_known(r.bg_gap) for r in reports):
        return None
    rows, label = [(r.model, r.bg_gap) for r in reports], "BG-Gap per model, in points"
    drawn = Drawn(charts.intervals(rows, label=label), charts.intervals(rows, label=label, narrow=True))
    data = {"chart": drawn, "level": level_of(reports)}
    return Section("gaps.html", data, anchor="gap", heading="Accuracy lost to the background")


def variants_section(reports: Sequence[Measurement]) -> Section:
    """Bars of the accuracy per variant, with what guessing would get."""
    names = [r.model for r in reports]
    variants = [v for v in VARIANT_WORDS if any(v in r.variants for r in reports)]
    series = {unique_name(names, i): [r.accuracy(v) for v in variants] for i, r in enumerate(reports)}
    chance = 1 / len(reports[0].class_names) if reports[0].images.targets is None else None
    categories, label = [VARIANT_WORDS[v] for v in variants], "accuracy per variant and model"
    drawn = Drawn(
        charts.bars(categories, series, label=label, chance=chance),
        charts.bars(categories, series, label=label, chance=chance, narrow=True),
    )
    data = {
        "objectless": any(v in OBJECTLESS_VARIANTS for v in variants),
        "key": colour_key(names),
        "chart": drawn,
        "chance": None if chance is None else percent(chance, 1),
    }
    return Section("variants.html", data, anchor="variants", heading="Accuracy by what is shown")


def curves_section(panels: Mapping[str, Mapping[str, Sequence[float]]], reports: Sequence[Measurement]) -> Section:
    """Small charts side by side, one per quantity, over the epochs of training."""
    colours = {r.model: i for i, r in enumerate(reports)}
    for series in panels.values():
        for name in series:
            colours.setdefault(name, len(colours))
    drawn = []
    for title, series in panels.items():
        above_one = any(v > 1 for values in series.values() for v in values if math.isfinite(v))
        unit = "" if above_one or "loss" in title.lower() else "%"
        drawn.append((title, charts.lines(series, label=title, unit=unit, colours=colours)))
    legend = [(name, colour) for name, colour in colours.items() if any(name in series for series in panels.values())]
    return Section("curves.html", {"panels": drawn, "key": legend}, anchor="curves", heading="During training")


@dataclass(frozen=True)
class ScorePanel:
    """The distribution of one score, and its means in words."""

    name: str
    chart: Chart
    line: str


def scores_section(reports: Sequence[Measurement]) -> Section:
    """Distribution and mean of further scores per image, such as the pixel ratio of an attribution."""
    models = [r.model for r in reports]
    panels = []
    for name in dict.fromkeys(name for r in reports for name in r.scores):
        with_score = [(i, r) for i, r in enumerate(reports) if name in r.scores]
        series = {unique_name(models, i): [float(v) for v in r.images.scores.get(name, ())] for i, r in with_score}
        line = "; ".join(_score_line(r, name) for _, r in with_score)
        panels.append(ScorePanel(name, charts.histogram(series, label=f"distribution of {name}"), line))
    data = {"panels": panels, "key": colour_key(models)}
    return Section("scores.html", data, anchor="scores", heading="Where the model looks")


def settings_section(reports: Sequence[Measurement], extra: Mapping[str, Any] | None = None) -> Section:
    """Every setting, count and version, as they are; what all models share stands once."""
    first = reports[0]
    blocks: list[tuple[str, Mapping[str, Any]]] = [("Run", dict(extra))] if extra else []
    shared = {k: v for k, v in first.settings.items() if all(r.settings.get(k, _ABSENT) == v for r in reports)}
    blocks.append(("Measurement", shared))
    for report in reports:
        blocks.append((f"Only {report.model}", {k: v for k, v in report.settings.items() if k not in shared}))
    blocks += [("Counts", first.counts), ("Versions", first.versions)]
    for report in reports[1:]:
        if report.counts != first.counts:
            blocks.append((f"Counts, {report.model}", report.counts))
        if report.versions != first.versions:
            blocks.append((f"Versions, {report.model}", report.versions))
    blocks_in_words = [
        (title, [(str(k).replace("_", " "), _in_words(v)) for k, v in block.items()])
        for title, block in blocks
        if block
    ]
    return Section("settings.html", {"blocks": blocks_in_words}, anchor="settings", heading="Settings and versions")


def footnotes_section(reports: Sequence[Measurement]) -> Section:
    """What each number means."""
    data = {"level": level_of(reports)}
    return Section("footnotes.html", data, anchor="footnotes", heading="What the numbers mean")


def colour_key(names: Sequence[str]) -> list[tuple[str, int]]:
    """Which colour is which model."""
    return [(name, index) for index, name in enumerate(names)]


def level_of(reports: Sequence[Measurement]) -> str:
    """The level of the intervals in percent."""
    return f"{100 * reports[0].confidence:g}%"


def unique_name(names: Sequence[str], index: int) -> str:
    """The model's name, numbered when another one before it is called the same."""
    same_before = names[:index].count(names[index])
    return f"{names[index]} ({same_before + 1})" if same_before else names[index]


def _score_line(report: Measurement, name: str) -> str:
    score = report.scores[name]
    ends = interval_of(score.mean)
    line = f"{report.model}: mean {score.mean.value:.3f}" if is_known(score.mean) else f"{report.model}: not known"
    line += f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
    return line + (f", {score.n_undefined} undefined" if score.n_undefined else "")


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_in_words(v) for v in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_in_words(v)}" for k, v in value.items())
    return str(value)
