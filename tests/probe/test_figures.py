"""Figures for loggers."""

from __future__ import annotations

import pytest
from probe_pages import make_report


def test_figures_for_loggers() -> None:
    pytest.importorskip("matplotlib")
    figures = make_report(examples=2, score=True).figures
    assert set(figures) == {"variants", "classes", "scores/pixel_ratio/grad_cam", "examples", "heatmaps"}
    for figure in figures.values():
        figure.canvas.draw()
    bars = figures["variants"].axes[0].patches
    assert max(bar.get_width() for bar in bars) == pytest.approx(
        100 * max(v.accuracy.value for v in make_report().variants.values()), abs=1e-6
    )


def test_whiskers_end_where_intervals_do() -> None:
    pytest.importorskip("matplotlib")
    report = make_report()
    axes = report.figures["variants"].axes[0]
    (whiskers,) = axes.containers[0].lines[2]
    names = [label.get_text() for label in axes.get_yticklabels()]
    ends = [(segment[0][0], segment[1][0]) for segment in whiskers.get_segments()]
    assert len(ends) == len(names) == len(report.variants)
    for (low, high), variant in zip(ends, report.variants.values(), strict=True):
        assert (low, high) == pytest.approx((100 * variant.accuracy.low, 100 * variant.accuracy.high))
        assert low < high
