"""Figures of a measurement for loggers and papers; matplotlib is imported when one is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import torch

from torch_bgdebias._optional import require
from torch_bgdebias.isnet.figures import heatmap_figure
from torch_bgdebias.probe.concepts import concept_heatmap
from torch_bgdebias.probe.results.heatmaps import unpacked_heatmap
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.naming import answer_is_right, answer_name, label_name
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, is_known
from torch_bgdebias.probe.results.summary import classes_by_gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figures_of"]

_BLUE, _ORANGE, _RULE = "#0b6fb8", "#d2691e", "#dfe4ea"


def figures_of(report: Measurement) -> dict[str, Figure]:
    """Figures by name: ``variants`` (where there are labels), ``classes`` (where there is a gap), ``scores/<name>``,
    ``examples``, ``heatmaps`` (of the examples, where attributions were measured) and ``concepts/<layer>/<method>``.

    They are made without pyplot: nothing is registered globally and nothing needs closing.

    Raises:
        ImportError: matplotlib is not installed; the message says which extra brings it.
    """
    figures = {"variants": _variants(report)} if report.images.labelled else {}
    if any(is_known(c.bg_gap) for c in report.per_class):
        figures["classes"] = _classes(report)
    for name in report.scores:
        figures[f"scores/{name}"] = _score(report, name)
    if report.examples:
        figures["examples"] = _examples(report)
    if any(e.heatmaps for e in report.examples):
        figures["heatmaps"] = _heatmaps(report)
    for table in report.concepts:
        title = f"Concept IoU by background, {table.layer} ({table.method}); * corrected p <= 0.05"
        figures[f"concepts/{table.layer}/{table.method}"] = concept_heatmap(table.rows, title=title)
    return figures


def _new_figure(width: float, height: float) -> Figure:
    figure: Figure = require("matplotlib.figure", purpose="drawing a report's figures").Figure(
        figsize=(width, height), dpi=120, layout="constrained"
    )
    return figure


def _variants(report: Measurement) -> Figure:
    variants = [v for v in VARIANT_WORDS if v in report.variants]
    figure = _new_figure(6.4, 0.8 + 0.38 * len(variants))
    axes = figure.add_subplot()
    estimates = [report.variants[v].accuracy for v in variants]
    _barh(axes, [VARIANT_WORDS[v] for v in variants], estimates, _BLUE)
    axes.set_xlim(0, 100)
    axes.set_xlabel(f"accuracy, % (with {100 * report.confidence:g}% interval)")
    axes.set_title(report.model)
    return figure


def _classes(report: Measurement) -> Figure:
    rows = classes_by_gap(report)[:40]
    figure = _new_figure(6.4, 0.9 + 0.26 * len(rows))
    axes = figure.add_subplot()
    _barh(axes, [f"{c.name} ({c.n})" for c in rows], [c.bg_gap for c in rows if c.bg_gap], _ORANGE)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("BG-Gap, points of accuracy")
    axes.set_title(f"{report.model}: classes by BG-Gap (images)")
    return figure


def _score(report: Measurement, name: str) -> Figure:
    figure = _new_figure(5.0, 3.0)
    axes = figure.add_subplot()
    values = [float(v) for v in report.images.scores.get(name, ()) if math.isfinite(v)]
    axes.hist(values, bins=20, range=(0.0, 1.0), color=_BLUE)
    mean = report.scores[name].mean.value
    if math.isfinite(mean):
        axes.axvline(mean, color=_ORANGE, label=f"mean {mean:.3f}")
        axes.legend(frameon=False)
    axes.set_xlabel(name)
    axes.set_ylabel("images")
    axes.set_title(report.model)
    return figure


def _examples(report: Measurement) -> Figure:
    """A row per image, a column per variant, all on one pair of axes: one pair a picture took seconds to lay out."""
    columns = list(dict.fromkeys(name for e in report.examples for name in e.pictures))
    figure_module = require("matplotlib.figure", purpose="drawing a report's figures")
    figure: Figure = figure_module.Figure(figsize=(1.5 * len(columns), 1.75 * len(report.examples)), dpi=120)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    for row, example in enumerate(report.examples):
        for column, variant in enumerate(columns):
            if variant in example.pictures:
                height, width = example.pictures[variant].shape[:2]
                half = 0.46 / max(width, height)  # of a cell 1.5 wide and 1.75 high, a picture takes 1.38 at most
                x, y = column + 0.5, row + 0.58
                extent = (x - half * width, x + half * width, y + half * height / 1.167, y - half * height / 1.167)
                axes.imshow(example.pictures[variant], extent=extent, aspect="auto")
            answer, wrong = "", False
            if variant in example.prediction:
                name = shorten(answer_name(report, example, variant), 22, placeholder="...")
                answer = f"\n{name} {100 * example.confidence[variant]:.0f}%"
                wrong = answer_is_right(example, variant) is False
            colour = "#b3261e" if wrong else "black"
            axes.text(
                column + 0.5, row + 0.17, f"{variant}{answer}", fontsize=7, color=colour, ha="center", va="bottom"
            )
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(report.examples), 0)
    return figure


def _heatmaps(report: Measurement) -> Figure:
    """Heatmaps of the examples that have the first one's size and maps, with their outlines."""
    names = list(report.examples[0].heatmaps)
    size = report.examples[0].pictures["original"].shape
    examples = [e for e in report.examples if list(e.heatmaps) == names and e.pictures["original"].shape == size]
    image = (
        torch.stack([torch.from_numpy(e.pictures["original"].copy()).permute(2, 0, 1) for e in examples]).float() / 255
    )
    maps = [np.stack([unpacked_heatmap(e.heatmaps[name]) for name in names]) for e in examples]
    masks = [e.mask for e in examples if e.mask is not None]
    return heatmap_figure(
        image,
        torch.from_numpy(np.stack(maps))[:, :, None],
        torch.from_numpy(np.stack(masks))[:, None].float() / 255 if len(masks) == len(examples) else None,
        titles=[label_name(report, e) for e in examples],
        map_names=names,
    )


def _barh(axes: Axes, names: Sequence[str], estimates: Sequence[Estimate], colour: str) -> None:
    percentages = [100 * e.value for e in estimates]
    below = [max(0.0, 100 * (e.value - e.low)) if math.isfinite(e.low) else 0.0 for e in estimates]
    above = [max(0.0, 100 * (e.high - e.value)) if math.isfinite(e.high) else 0.0 for e in estimates]
    axes.barh(
        range(len(names)), percentages, xerr=[below, above], color=colour, height=0.7, error_kw={"linewidth": 1.0}
    )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="x", color=_RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
