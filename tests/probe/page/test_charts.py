"""Charts: ranges, unknown values, holes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from torch_bgdebias.probe.page import charts
from torch_bgdebias.probe.page.render import Section, section_html
from torch_bgdebias.probe.results.measurement import Estimate
from torch_bgdebias.probe.results.spelling import points

NAN = Estimate(math.nan, math.nan, math.nan, 0)


def svg(chart: charts.Chart) -> str:
    """The chart as the page draws it."""
    return section_html(Section("curves.html", {"panels": [("title", chart)], "key": []}))


@pytest.mark.parametrize(
    ("value", "text"), [(0.504, "+50.4"), (-0.007, "−0.7"), (0.0, "0.0"), (-0.0001, "0.0"), (0.0004, "0.0")]
)
def test_points(value: float, text: str) -> None:
    assert points(value) == text


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (-0.03, 0.57), (0.0, 3.7), (-1.0, 1.0), (0.0, 1e-6), (0, 1234.5)]
)
def test_ticks_cover_the_range_in_a_few_round_steps(low: float, high: float) -> None:
    marks = charts.ticks(low, high)
    assert marks[0] <= low + 1e-9
    assert marks[-1] >= high - 1e-9
    assert 2 <= len(marks) <= 8 or low == high


@pytest.mark.parametrize(("high", "step"), [(5, 1), (10, 2), (25, 5), (50, 10), (0.5, 0.1), (0.91, 0.2)])
def test_ticks_step_by_one_two_or_five(high: float, step: float) -> None:
    marks = charts.ticks(0, high)
    assert marks == pytest.approx([i * step for i in range(len(marks))])


def test_charts_draw_unknown_values_and_holes() -> None:
    known = Estimate(0.5, 0.4, 0.6, 10)
    assert svg(charts.bars(["a", "b"], {"m": [known, NAN]}, label="x")).count("<rect") == 1
    assert "not known" in svg(charts.intervals([("m", None)], label="x"))
    assert svg(charts.lines({"m": [0.1, math.nan, 0.3]}, label="x", colours={"m": 0})).count("<circle") == 2
    assert "<svg" in svg(charts.lines({"m": []}, label="x", colours={}))
    assert "nan" not in svg(charts.histogram({"m": [math.nan, 0.0, 1.0], "n": []}, label="x"))


def test_histogram_shares_are_those_of_numpy() -> None:
    values = np.random.default_rng(0).random(100)
    expected = np.histogram(values, bins=20, range=(0, 1))[0] / 100
    assert charts.shares_of(values.tolist(), 20) == pytest.approx(expected.tolist())


def test_names_stand_beside_the_middle_of_their_bars() -> None:
    known = Estimate(0.5, 0.4, 0.6, 10)
    chart = charts.bars(["first", "second"], {"m": [known, known], "n": [known, known]}, label="x")
    names = {shape.text: shape.at[1] for shape in chart.shapes if shape.text in ("first", "second")}
    boxes = [shape.at for shape in chart.shapes if shape.kind == "bar"]
    for name, rows in zip(("first", "second"), (boxes[:2], boxes[2:]), strict=True):
        middle = (rows[0][1] + rows[-1][1] + rows[-1][3]) / 2
        assert middle + 2 <= names[name] <= middle + 5, "letters are about 8 high, and stand on their base line"


def test_models_stand_in_the_middle_of_their_rows() -> None:
    """Between the first line and the last, in even steps."""
    known = [Estimate(0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05, 10) for i in range(3)]
    chart = charts.intervals([(f"m{i}", each) for i, each in enumerate(known)], label="x")
    zero = next(shape for shape in chart.shapes if shape.style == "zero")
    (_, top, _, bottom) = zero.at
    heights = [shape.at[1] for shape in chart.shapes if shape.kind == "dot"]
    step = (bottom - top) / 3
    assert heights == pytest.approx([top + step * (i + 0.5) for i in range(3)])


def test_a_line_over_epochs_reaches_from_none_to_all() -> None:
    chart = charts.lines({"m": [0.0, 0.5, 1.0]}, label="x", colours={"m": 0})
    dots = [shape.at for shape in chart.shapes if shape.kind == "dot"]
    levels = sorted({shape.at[1] for shape in chart.shapes if shape.kind == "line" and shape.at[1] == shape.at[3]})
    assert len(levels) == 6, "0 to 100 percent by 20"
    assert 0 < levels[0] < levels[-1] < chart.height, "on the canvas"
    assert dots[0][1] == pytest.approx(levels[-1])
    assert dots[1][1] == pytest.approx((levels[0] + levels[-1]) / 2)
    assert dots[2][1] == pytest.approx(levels[0])
