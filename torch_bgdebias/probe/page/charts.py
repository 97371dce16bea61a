"""Charts of the HTML report as inline SVG: sharp in print, a few kilobytes each, no plotting package needed.

Values are fractions (0.872) and drawn in percent or points; the interval of an estimate is a whisker.
Colours are CSS classes (``c0``, ``c1``, ...), one per model, set in ``template.css``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TypeGuard

from torch_bgdebias.probe.results.measurement import Estimate

__all__ = ["bars", "histogram", "intervals", "lines"]


#: where a value lands on the page
Scale = Callable[[float], float]


def is_known(estimate: Estimate | None) -> TypeGuard[Estimate]:
    """Whether there is a finite value."""
    return estimate is not None and math.isfinite(estimate.value)


def interval_of(estimate: Estimate) -> tuple[float, float] | None:
    """The interval, where both of its ends are finite."""
    return (estimate.low, estimate.high) if math.isfinite(estimate.low) and math.isfinite(estimate.high) else None


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high]: steps of 1, 2 or 5 times a power of ten."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if span / (power * m) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def bars(categories: Sequence[str], series: Mapping[str, Sequence[Estimate | None]], *, label: str) -> str:
    """Horizontal bars from 0 to 100 %, one group per category, one bar per model, with interval whiskers.

    Args:
        categories: the groups' names, from top to bottom.
        series: model -> one estimate per category; unknown ones say so in place of a bar.
        label: what the chart shows, for screen readers.
    """
    left, right, top, bar, gap = 222, 64, 8, 16, 14
    width = 800
    group = bar * len(series) + gap
    height = top + group * len(categories) + 26
    plot = width - left - right

    def x(value: float) -> float:
        return left + plot * min(max(value, 0.0), 1.0)

    parts = [_grid(x, [0, 0.2, 0.4, 0.6, 0.8, 1.0], top, height - 26, percent)]
    for row, category in enumerate(categories):
        y0 = top + row * group + gap / 2
        parts.append(_text(left - 10, y0 + bar * len(series) / 2 + 4, category, "end"))
        for index, (name, estimates) in enumerate(series.items()):
            y = y0 + index * bar
            parts.append(_bar(x, y, bar, estimates[row], index, f"{name}, {category}"))
    return _svg(width, height, parts, label)


def intervals(rows: Sequence[tuple[str, Estimate | None]], *, label: str) -> str:
    """One dot with its interval per model on a common scale in points, zero marked."""
    ends = [v for _, e in rows if is_known(e) for v in (*(interval_of(e) or ()), e.value)]
    marks = ticks(min([0.0, *ends]), max([0.1, *ends]))
    left, right, top, step, width = 222, 64, 8, 34, 800
    height = top + step * len(rows) + 26

    def x(value: float) -> float:
        return left + (width - left - right) * (value - marks[0]) / (marks[-1] - marks[0])

    parts = [_grid(x, marks, top, height - 26, lambda v: f"{100 * v:.0f}".replace("-", "−"))]
    parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top}" y2="{height - 26}"/>')
    for index, (name, estimate) in enumerate(rows):
        y = top + step * (index + 0.5)
        parts.append(_text(left - 10, y + 4, name, "end"))
        if is_known(estimate):
            parts.append(f"<g><title>{escape(name)}: {escape(spell(estimate, points=True))}</title>")
            ends_here = interval_of(estimate)
            if ends_here:
                low, high = (x(v) for v in ends_here)
                parts.append(f'<line class="s{index % 6} thick" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
            parts.append(f'<circle class="c{index % 6}" cx="{x(estimate.value):.1f}" cy="{y}" r="6"/></g>')
            parts.append(_text(width - right + 12, y + 4, points(estimate.value), "start", "value"))
        else:
            parts.append(_text(left + 6, y + 4, "not known", "start", "muted"))
    return _svg(width, height, parts, label)


def lines(series: Mapping[str, Sequence[float]], *, label: str, unit: str = "%", colours: Mapping[str, int]) -> str:
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
    marks = [0, 0.2, 0.4, 0.6, 0.8, 1.0] if unit == "%" else ticks(min([0.0, *finite]), max([1e-3, *finite]), about=4)

    def x(epoch: float) -> float:
        return left + (width - left - right) * ((epoch - 1) / (length - 1) if length > 1 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - marks[0]) / (marks[-1] - marks[0]))

    parts = []
    for mark in marks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        parts.append(_text(left - 7, y(mark) + 4, percent(mark) if unit == "%" else f"{mark:g}", "end", "tick"))
    shown = sorted({round(1 + i * (length - 1) / min(5, max(length - 1, 1))) for i in range(min(6, length))})
    parts += [_text(x(e), height - bottom + 17, str(e), "middle", "tick") for e in shown]
    parts.append(_text((left + width - right) / 2, height - 4, "epoch", "middle", "tick"))
    for name, values in series.items():
        colour = colours.get(name, 0) % 6
        dots = [(x(e), y(v), v) for e, v in enumerate(values, start=1) if math.isfinite(v)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in dots)
        parts.append(f'<polyline class="s{colour} line" points="{path}"/>')
        for px, py, value in dots:
            told = percent(value, 1) if unit == "%" else f"{value:.3g}"
            parts.append(f'<circle class="c{colour}" cx="{px:.1f}" cy="{py:.1f}" r="3.2">')
            parts.append(f"<title>{escape(name)}: {told}</title></circle>")
    return _svg(width, height, parts, label)


def histogram(series: Mapping[str, Sequence[float]], *, label: str, bins: int = 20) -> str:
    """Distributions of values in [0, 1], one outlined step curve per model, as shares of that model's images."""
    width, height, left, right, top, bottom = 370, 210, 46, 14, 10, 38
    shares = {name: _shares(values, bins) for name, values in series.items()}
    peak = max((s for share in shares.values() for s in share), default=0.0)
    marks = ticks(0.0, max(peak, 0.05), about=4)

    def x(value: float) -> float:
        return left + (width - left - right) * value

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / marks[-1])

    parts = []
    for mark in marks:
        parts.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
        parts.append(_text(left - 7, y(mark) + 4, percent(mark), "end", "tick"))
    parts += [_text(x(v), height - bottom + 17, f"{v:g}", "middle", "tick") for v in (0, 0.25, 0.5, 0.75, 1)]
    for index, (name, share) in enumerate(shares.items()):
        corners = [(b / bins, s) for b, s in enumerate(share)] + [(1.0, share[-1] if share else 0.0)]
        steps = [f"M{x(0):.1f},{y(0):.1f}"]
        for (x0, value), (x1, _) in itertools.pairwise(corners):
            steps.append(f"L{x(x0):.1f},{y(value):.1f}L{x(x1):.1f},{y(value):.1f}")
        steps.append(f"L{x(1):.1f},{y(0):.1f}")
        parts.append(f'<path class="s{index % 6} area c{index % 6}" d="{"".join(steps)}">')
        parts.append(f"<title>{escape(name)}</title></path>")
    return _svg(width, height, parts, label)


def percent(value: float, digits: int = 0) -> str:
    """0.872 -> ``87%`` (thin and without a space: axis labels are narrow)."""
    return f"{100 * value:.{digits}f}%"


def points(value: float) -> str:
    """A difference of accuracies: 0.504 -> ``+50.4``, with a true minus sign; nothing rounds to ``-0.0``."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else ''}{abs(rounded):.1f}"


def spell(estimate: Estimate | None, *, points: bool = False, confidence: float = 0.95) -> str:
    """An estimate in words: ``50.4 points (95% interval 47.9 to 52.8)``."""
    if not is_known(estimate):
        return "not known"
    told = f"{number(estimate.value)} points" if points else percent(estimate.value, 1)
    ends = interval_of(estimate)
    if ends is None:
        return told
    return f"{told} ({100 * confidence:g}% interval {number(ends[0])} to {number(ends[1])})"


def number(value: float) -> str:
    """A fraction in points with one decimal and a true minus sign."""
    rounded = round(100 * value, 1)
    return f"{'−' if rounded < 0 else ''}{abs(rounded):.1f}"


def _shares(values: Sequence[float], bins: int) -> list[float]:
    counts = [0] * bins
    finite = [v for v in values if math.isfinite(v)]
    for value in finite:
        counts[min(bins - 1, max(0, int(value * bins)))] += 1
    return [c / max(1, len(finite)) for c in counts]


def _bar(x: Scale, y: float, bar: int, estimate: Estimate | None, index: int, name: str) -> str:
    if not is_known(estimate):
        return _text(x(0) + 6, y + bar - 4, "not known", "start", "muted small")
    colour = index % 6
    value = estimate.value
    parts = [f"<g><title>{escape(name)}: {escape(spell(estimate))}</title>"]
    parts.append(f'<rect class="c{colour}" x="{x(0):.1f}" y="{y + 1:.1f}" width="{x(value) - x(0):.1f}" ')
    parts.append(f'height="{bar - 2}" rx="1.5"/>')
    ends = interval_of(estimate)
    if ends:
        low, high = (x(v) for v in ends)
        parts.append(f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y + bar / 2}" y2="{y + bar / 2}"/>')
    parts.append("</g>")
    parts.append(_text(x(1) + 12, y + bar - 4, percent(value, 1), "start", "value small"))
    return "".join(parts)


def _grid(x: Scale, marks: Sequence[float], top: float, bottom: float, spelled: Callable[[float], str]) -> str:
    parts = []
    for mark in marks:
        parts.append(f'<line class="grid" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{top}" y2="{bottom}"/>')
        parts.append(_text(x(mark), bottom + 17, spelled(mark), "middle", "tick"))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>'


def _svg(width: int, height: float, parts: Sequence[str], label: str) -> str:
    inner = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height:.0f}" role="img" aria-label="{escape(label)}">{inner}</svg>'
