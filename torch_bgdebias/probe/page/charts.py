"""The geometry of a report's charts; ``templates/charts.html`` draws them as inline SVG.

Values are fractions (0.872) and shown in percent or points; the interval of an estimate is a whisker. Colours are CSS
classes (``c0``, ``c1``, ...), one per model, set in ``templates/page.css``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch_bgdebias.probe.results.measurement import Estimate
from torch_bgdebias.probe.results.spelling import interval_of, is_known, percent, points, spell

__all__ = ["Chart", "Shape", "bars", "histogram", "intervals", "lines", "ticks"]

#: where a value lands on the page
Scale = Callable[[float], float]
_MUTED = "muted"


class _Layout(NamedTuple):
    """The places of a chart's parts: width, margins, height kept for a name above its row, letters of a name."""

    width: int
    left: int
    right: int
    above: int
    letters: int


_WIDE, _NARROW = _Layout(800, 222, 64, 0, 30), _Layout(360, 8, 56, 20, 46)


@dataclass(frozen=True)
class Shape:
    """One shape of a chart, in the chart's own units.

    Attributes:
        kind: which shape.
        style: CSS classes.
        at: its numbers: x1, y1, x2, y2 of a line; x, y of text; x, y, width, height of a bar; x, y, radius of a dot;
            x, y alternating of a curve.
        text: what a text says, or what is shown when the mouse rests on the shape.
        anchor: of a text: ``start``, ``middle`` or ``end``.
    """

    kind: Literal["line", "text", "bar", "dot", "curve"]
    style: str
    at: tuple[float, ...]
    text: str = ""
    anchor: str = "start"


@dataclass(frozen=True)
class Chart:
    """Shapes on a canvas of ``width`` x ``height``; ``label`` says to screen readers what is shown."""

    width: int
    height: float
    label: str
    shapes: Sequence[Shape]


def ticks(low: float, high: float, *, count: int = 5) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / count))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def bars(
    categories: Sequence[str],
    series: Mapping[str, Sequence[Estimate | None]],
    *,
    label: str,
    chance: float | None = None,
    narrow: bool = False,
) -> Chart:
    """Horizontal bars from 0 to 100 %, one group per category, one bar per model, with interval whiskers.

    Args:
        categories: the groups' names, from top to bottom.
        series: model -> one estimate per category; unknown ones say so in place of a bar.
        label: what the chart shows, for screen readers.
        chance: what guessing would get, marked by a line.
        narrow: for narrow pages: names stand above their bars.
    """
    layout = _NARROW if narrow else _WIDE
    left, right, bar_height, width, top = layout.left, layout.right, 16, layout.width, 8 if chance is None else 22
    group_height, name_height = bar_height * len(series) + layout.above + 14, layout.above
    height = top + group_height * len(categories) + 26
    plot = width - left - right

    def x(value: float) -> float:
        return left + plot * min(max(value, 0.0), 1.0)

    shapes = _vertical_grid(x, [0, 0.2, 0.4, 0.6, 0.8, 1.0], top, height - 26, percent)
    if chance is not None:
        shapes.append(Shape("line", "zero", (x(chance), top, x(chance), height - 26), f"guessing: {percent(chance)}"))
        shapes.append(_text(x(chance), top - 6, f"guessing {percent(chance)}", "middle" if chance > 0.1 else "start",
                            "tick"))  # fmt: skip
    for row, category in enumerate(categories):
        y0 = top + row * group_height + 7 + name_height
        shapes.append(_row_name(layout, y0 + bar_height * len(series) / 2 + 4, y0 - 5, category))
        for index, (name, estimates) in enumerate(series.items()):
            shapes += _bar(x, y0 + index * bar_height, bar_height, estimates[row], index, f"{name}, {category}")
    return Chart(width, height, label, shapes)


def intervals(rows: Sequence[tuple[str, Estimate | None]], *, label: str, narrow: bool = False) -> Chart:
    """One dot with its interval per model on a common scale in points, zero marked.

    Args:
        rows: models with their gaps.
        label: what the chart shows, for screen readers.
        narrow: for narrow pages: names stand above their intervals.
    """
    extremes = [v for _, e in rows if is_known(e) for v in (*(interval_of(e) or ()), e.value)]
    layout = _NARROW if narrow else _WIDE
    marks = ticks(min([0.0, *extremes]), max([0.1, *extremes]), count=4 if narrow else 5)
    left, right, top, step, width = layout.left, layout.right, 8, 34 + layout.above, layout.width
    height = top + step * len(rows) + 26

    def x(value: float) -> float:
        return left + (width - left - right) * (value - marks[0]) / (marks[-1] - marks[0])

    shapes = _vertical_grid(x, marks, top, height - 26, lambda v: f"{100 * v:.0f}".replace("-", "−"))
    shapes.append(Shape("line", "zero", (x(0), top, x(0), height - 26)))
    for index, (name, estimate) in enumerate(rows):
        y = top + step * (index + 0.5) + layout.above / 2
        shapes.append(_row_name(layout, y + 4, y - 14, name))
        if not is_known(estimate):
            shapes.append(_text(left + 6, y + 4, "not known", "start", _MUTED))
            continue
        tooltip = f"{name}: {spell(estimate, points=True)}"
        if ends := interval_of(estimate):
            shapes.append(Shape("line", f"s{index % 6} thick", (x(ends[0]), y, x(ends[1]), y), tooltip))
        shapes.append(Shape("dot", f"c{index % 6}", (x(estimate.value), y, 6), tooltip))
        shapes.append(_text(width - right + 12, y + 4, points(estimate.value), "start", "value"))
    return Chart(width, height, label, shapes)


def lines(series: Mapping[str, Sequence[float]], *, label: str, unit: str = "%", colours: Mapping[str, int]) -> Chart:
    """One line per model over epochs 1, 2, ...; percent on a 0 to 100 scale, any other unit on its own.

    Args:
        series: model -> one value per epoch; values that are not finite leave a hole.
        label: what the chart shows, for screen readers.
        unit: ``"%"`` for fractions, else the values are drawn as they are.
        colours: model -> colour class.
    """
    width, height, left, right, top, bottom = 370, 230, 46, 14, 10, 38
    length = max((len(v) for v in series.values()), default=0)
    finite = [v for values in series.values() for v in values if math.isfinite(v)]
    marks = [0, 0.2, 0.4, 0.6, 0.8, 1.0] if unit == "%" else ticks(min([0.0, *finite]), max([1e-3, *finite]), count=4)

    def x(epoch: float) -> float:
        return left + (width - left - right) * ((epoch - 1) / (length - 1) if length > 1 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - marks[0]) / (marks[-1] - marks[0]))

    shapes = _horizontal_grid(y, marks, left, width - right, percent if unit == "%" else lambda v: f"{v:g}")
    labelled_epochs = sorted({round(1 + i * (length - 1) / min(5, max(length - 1, 1))) for i in range(min(6, length))})
    shapes += [_text(x(e), height - bottom + 17, str(e), "middle", "tick") for e in labelled_epochs]
    shapes.append(_text((left + width - right) / 2, height - 4, "epoch", "middle", "tick"))
    for name, values in series.items():
        colour = colours.get(name, 0) % 6
        dots = [(x(e), y(v), v) for e, v in enumerate(values, start=1) if math.isfinite(v)]
        shapes.append(Shape("curve", f"s{colour} line", tuple(z for dot in dots for z in dot[:2])))
        for px, py, value in dots:
            tooltip = f"{name}: {percent(value, 1) if unit == '%' else f'{value:.3g}'}"
            shapes.append(Shape("dot", f"c{colour}", (px, py, 3.2), tooltip))
    return Chart(width, height, label, shapes)


def histogram(series: Mapping[str, Sequence[float]], *, label: str, bins: int = 20) -> Chart:
    """Distributions of values in [0, 1], one outlined step curve per model, as shares of that model's images."""
    width, height, left, right, top, bottom = 370, 210, 46, 14, 10, 38
    shares = {name: shares_of(values, bins) for name, values in series.items()}
    peak = max((s for share in shares.values() for s in share), default=0.0)
    marks = ticks(0.0, max(peak, 0.05), count=4)

    def x(value: float) -> float:
        return left + (width - left - right) * value

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / marks[-1])

    shapes = _horizontal_grid(y, marks, left, width - right, percent)
    shapes += [_text(x(v), height - bottom + 17, f"{v:g}", "middle", "tick") for v in (0, 0.25, 0.5, 0.75, 1)]
    for index, (name, share) in enumerate(shares.items()):
        corners = [(b / bins, s) for b, s in enumerate(share)] + [(1.0, share[-1] if share else 0.0)]
        steps = [x(0), y(0)]
        for (x0, value), (x1, _) in itertools.pairwise(corners):
            steps += [x(x0), y(value), x(x1), y(value)]
        steps += [x(1), y(0)]
        shapes.append(Shape("curve", f"s{index % 6} area c{index % 6}", tuple(steps), name))
    return Chart(width, height, label, shapes)


def shares_of(values: Sequence[float], bins: int) -> list[float]:
    """Share of the finite values in each of ``bins`` equal parts of [0, 1]."""
    counts = [0] * bins
    finite = [v for v in values if math.isfinite(v)]
    for value in finite:
        counts[min(bins - 1, max(0, int(value * bins)))] += 1
    return [c / max(1, len(finite)) for c in counts]


def _bar(x: Scale, y: float, bar_height: int, estimate: Estimate | None, index: int, name: str) -> list[Shape]:
    if not is_known(estimate):
        return [_text(x(0) + 6, y + bar_height - 4, "not known", "start", f"{_MUTED} small")]
    value, tooltip = estimate.value, f"{name}: {spell(estimate)}"
    shapes = [Shape("bar", f"c{index % 6}", (x(0), y + 1, x(value) - x(0), bar_height - 2), tooltip)]
    if ends := interval_of(estimate):
        shapes.append(
            Shape("line", "whisker", (x(ends[0]), y + bar_height / 2, x(ends[1]), y + bar_height / 2), tooltip)
        )
    return [*shapes, _text(x(1) + 12, y + bar_height - 4, percent(value, 1), "start", "value small")]


def _row_name(layout: _Layout, beside: float, above: float, name: str) -> Shape:
    """A row's name, left of it or above it; a long one is cut."""
    short = name if len(name) <= layout.letters else f"{name[: layout.letters - 1]}…"
    if layout.above:
        return Shape("text", "", (2, above), short, "start")
    return Shape("text", "", (layout.left - 10, beside), short, "end")


def _vertical_grid(
    x: Scale, marks: Sequence[float], top: float, bottom: float, format_value: Callable[[float], str]
) -> list[Shape]:
    """Upright lines with their numbers below."""
    shapes = []
    for mark in marks:
        shapes.append(Shape("line", "grid", (x(mark), top, x(mark), bottom)))
        shapes.append(_text(x(mark), bottom + 17, format_value(mark), "middle", "tick"))
    return shapes


def _horizontal_grid(
    y: Scale, marks: Sequence[float], left: float, right: float, format_value: Callable[[float], str]
) -> list[Shape]:
    """Level lines with their numbers on the left."""
    shapes = []
    for mark in marks:
        shapes.append(Shape("line", "grid", (left, y(mark), right, y(mark))))
        shapes.append(_text(left - 7, y(mark) + 4, format_value(mark), "end", "tick"))
    return shapes


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> Shape:
    return Shape("text", style, (x, y), text, anchor)
