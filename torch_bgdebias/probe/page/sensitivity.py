"""Data of the section on mask quality: a curve over the masks' overlap, a table, the conclusion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch_bgdebias.probe.page.charts import Chart, Shape, ticks
from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.sensitivity import TOLERANCE, MaskRow, MaskSensitivity

__all__ = ["sensitivity_chart", "sensitivity_section"]


@dataclass(frozen=True)
class TableRow:
    """One way of being wrong, in words."""

    name: str
    overlap: str
    cells: list[str]


def sensitivity_section(measured: MaskSensitivity) -> Section:
    """Curve, table and sentence."""
    names = list(measured.rows[0].figures)
    rows = [TableRow(row.name, f"{row.overlap:.2f}", [_cell(row, name) for name in names]) for row in measured.rows]
    return Section(
        "mask_sensitivity.html",
        {
            "sentence": measured.sentence(),
            "images": measured.rows[0].images,
            "chart": sensitivity_chart(measured),
            "heads": [_HEADS.get(name, name.replace("_", " ")) for name in names],
            "rows": rows,
        },
        anchor="masks",
        heading="How good must the masks be?",
    )


_HEADS = {"bg_gap": "BG-Gap, points", "adversarial_accuracy": "right on all backgrounds, %"}


def sensitivity_chart(measured: MaskSensitivity) -> Chart:
    """The BG-Gap's change in points over the masks' overlap; the band of two points, and the own quality, marked."""
    width, height, left, right, top, bottom = 800, 260, 56, 20, 12, 40
    points = [(row, measured.change(row)) for row in measured.rows if math.isfinite(measured.change(row))]
    changes = [change for _, change in points]
    marks = ticks(min([-TOLERANCE, *changes]), max([TOLERANCE, *changes]))
    low, high = marks[0], max(marks[-1], marks[0] + 1e-9)

    def x(overlap: float) -> float:
        return left + (width - left - right) * overlap

    def y(change: float) -> float:
        return top + (height - top - bottom) * (1 - (change - low) / (high - low))

    shapes = []
    for mark in marks:
        shapes.append(Shape("line", "grid", (left, y(mark), width - right, y(mark))))
        shapes.append(Shape("text", "tick", (left - 8, y(mark) + 4), f"{100 * mark:+.0f}", "end"))
    for edge in (-TOLERANCE, TOLERANCE):
        shapes.append(Shape("line", "whisker", (left, y(edge), width - right, y(edge)), f"{100 * edge:+.0f} points"))
    for tenth in range(0, 11, 2):
        shapes.append(Shape("text", "tick", (x(tenth / 10), height - bottom + 17), f"{tenth / 10:.1f}", "middle"))
    axis_title = "overlap of the masks with those as given"
    shapes.append(Shape("text", "tick", ((left + width - right) / 2, height - 4), axis_title, "middle"))
    if measured.quality is not None:
        quality_x = x(measured.quality)
        shapes.append(
            Shape("line", "whisker", (quality_x, top, quality_x, height - bottom), f"yours: {measured.quality:.2f}")
        )
    for row, change in points:
        shapes.append(Shape("dot", "c0", (x(row.overlap), y(change), 4), f"{row.name}: {100 * change:+.1f} points"))
    return Chart(width, height, "change of the BG-Gap over the masks' overlap", shapes)


def _cell(row: MaskRow, name: str) -> str:
    value = row.figures.get(name, math.nan)
    if not math.isfinite(value):
        return "not known"
    return f"{value:.3f}" if name.startswith("pixel_ratio") else f"{100 * value:.1f}"
