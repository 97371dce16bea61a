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
