"""Deprecated functions: they work for one more release and name their replacement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.metrics.statistics import PermutationTest, paired_permutation_test
from torch_bgdebias.probe.report import BackgroundBiasReport
from torch_bgdebias.probe.results.columns import paired_columns
from torch_bgdebias.probe.results.pairing import matched_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["compare_reports", "report_figures", "report_to_html"]


def compare_reports(
    first: BackgroundBiasReport, second: BackgroundBiasReport, *, n_resamples: int = 9999, seed: int = 0
) -> dict[str, PermutationTest]:
    """Deprecated paired permutation tests between two models; use `torch_bgdebias.probe.compare_models`.

    Returns:
        A test per figure, named as in `torch_bgdebias.probe.ModelComparison`; the difference is first minus
        second, and the p-values are not corrected for their number.

    Raises:
        ValueError: the reports share no image.
    """
    warn_renamed("compare_reports(first, second)", "compare_models([first, second])")
    rows = matched_images(first.images, second.images)
    if rows is None:
        raise ValueError("reports: expected results on the same images, got no image that both have")
    first_columns, second_columns = paired_columns(first.images), paired_columns(second.images)
    return {
        name: paired_permutation_test(
            first_columns[name][rows[0]], second_columns[name][rows[1]], n_resamples=n_resamples, seed=seed
        )
        for name in first_columns
        if name in second_columns
    }


def report_to_html(reports: Sequence[BackgroundBiasReport], path: str | Path, **options: Any) -> Path:
    """Deprecated page about several models; use ``reports[0].to_html(path, others=reports[1:])``.

    Raises:
        ValueError: no report.
    """
    warn_renamed("report_to_html([report, ...], path)", "report.to_html(path, others=[...])")
    if not reports:
        raise ValueError("reports: expected at least one BackgroundBiasReport, got none")
    return reports[0].to_html(path, others=reports[1:], **options)


def report_figures(report: BackgroundBiasReport) -> dict[str, Figure]:
    """Deprecated figures of a report by name; use ``report.figures``."""
    warn_renamed("report_figures(report)", "report.figures")
    return report.figures
