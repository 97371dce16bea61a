"""Data of the section on AUC, sensitivity and calibration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch_bgdebias.probe.page.render import Section
from torch_bgdebias.probe.results.comparison import Change, ModelComparison
from torch_bgdebias.probe.results.measurement import Estimate, Measurement
from torch_bgdebias.probe.results.performance import SPECIFICITY, VariantPerformance, area_gap, performance_of
from torch_bgdebias.probe.results.spelling import VARIANT_WORDS, interval_of, is_known, p_words, percent

__all__ = ["performance_section"]

#: variants whose classes have a table, and whose confusion matrix is shown
_DETAILED = ("original", "mixed_rand")
_MOST_CLASSES = 12  # a larger matrix is not readable


@dataclass(frozen=True)
class Cell:
    """A figure and what stands under it."""

    value: str
    small: str = ""


@dataclass(frozen=True)
class Row:
    """A variant, or a class."""

    head: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class MatrixCell:
    """Images of a class with an answer, and how dark the cell is."""

    count: str
    shade: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix with the names of its rows and columns."""

    title: str
    names: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixCell]]]


@dataclass(frozen=True)
class ModelPerformance:
    """The tables of one model."""

    model: str
    line: str
    variants: Sequence[Row]
    labels: Sequence[tuple[str, Sequence[Row]]]
    matrices: Sequence[Matrix]


def performance_section(reports: Sequence[Measurement], comparisons: Sequence[ModelComparison | None]) -> Section:
    """Per model: a row per variant, a row per class, and confusion matrices."""
    by_model = [None, *comparisons] if comparisons else [None] * len(reports)
    models = [
        _model_performance(report, rows, comparison)
        for report, comparison in zip(reports, by_model, strict=True)
        if (rows := performance_of(report))
    ]
    has_label_sets = reports[0].images.targets is not None
    level = f"{100 * reports[0].confidence:g}%"
    class_word = "label" if has_label_sets else "class"
    heads = (class_word.capitalize(), "Images", "AUC", "Sensitivity", "Specificity", "Balanced accuracy", "F1")
    at = f"Sensitivity at {percent(SPECIFICITY)} specificity"
    data = {"models": models, "heads": (*heads, at), "level": level, "sets": has_label_sets}
    return Section("performance.html", data, anchor="performance", heading="AUC, sensitivity, calibration")


def _model_performance(
    report: Measurement, rows: dict[str, VariantPerformance], comparison: ModelComparison | None
) -> ModelPerformance:
    changes = {} if comparison is None else comparison.figures
    variants = [
        Row(VARIANT_WORDS[name].capitalize(), _variant_cells(row, changes.get(f"auc/{name}"), comparison))
        for name in VARIANT_WORDS
        if (row := rows.get(name))
    ]
    labels = [(f"{VARIANT_WORDS[name]}", _label_rows(rows[name])) for name in _DETAILED if name in rows]
    readable = 1 < len(report.class_names) <= _MOST_CLASSES
    matrices = [
        _matrix(VARIANT_WORDS[name], rows[name].confusion, report.class_names)
        for name in VARIANT_WORDS
        if readable and name in rows and rows[name].confusion
    ]
    return ModelPerformance(report.model, _gap_line(report), variants, labels, matrices)


def _gap_line(report: Measurement) -> str:
    gap = area_gap(report)
    if gap is None or not is_known(gap.difference):
        return ""
    ends = interval_of(gap.difference)
    between = f", {_three_decimals(ends[0])} to {_three_decimals(ends[1])}" if ends else ""
    return (
        f"AUC on own backgrounds less AUC on random ones: {_three_decimals(gap.difference.value)}{between} "
        f"({p_words(gap.p_value)}, DeLong's paired test)."
    )


def _variant_cells(row: VariantPerformance, change: Change | None, comparison: ModelComparison | None) -> list[Cell]:
    area = _cell(row.auc)
    if change is not None and comparison is not None and is_known(change.difference):
        change_words = f"{round(change.difference.value, 3) + 0.0:+.3f}".replace("-", "−")
        area = Cell(area.value, f"{area.small}; {change_words} against {comparison.first}, {p_words(change.corrected)}")
    calibration = Cell(
        _three_decimals(row.calibration_error), f"{_three_decimals(row.calibration_by_chance)} by chance"
    )
    return [area, _cell(row.balanced_accuracy), _cell(row.f1), calibration]


def _label_rows(row: VariantPerformance) -> list[Row]:
    return [
        Row(
            label.name,
            [
                Cell(f"{label.positives:,}"),
                *(_cell(e) for e in (label.auc, label.sensitivity, label.specificity, label.balanced_accuracy)),
                _cell(label.f1),
                _cell(label.sensitivity_at),
            ],
        )
        for label in row.labels
    ]


def _matrix(title: str, counts: Sequence[Sequence[int]], names: Sequence[str]) -> Matrix:
    rows = []
    for name, line in zip(names, counts, strict=True):
        total = max(sum(line), 1)
        rows.append((name, [MatrixCell(f"{count:,}", f"{0.6 * count / total:.2f}") for count in line]))
    return Matrix(title, names, rows)


def _cell(estimate: Estimate) -> Cell:
    if not is_known(estimate):
        return Cell("not known")
    ends = interval_of(estimate)
    return Cell(
        _three_decimals(estimate.value), f"{_three_decimals(ends[0])} to {_three_decimals(ends[1])}" if ends else ""
    )


def _three_decimals(value: float) -> str:
    return "not known" if math.isnan(value) else f"{round(value, 3) + 0.0:.3f}".replace("-", "−")
