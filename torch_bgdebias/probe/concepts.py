"""Which concepts depend on which backgrounds: intervals, tests and a figure for a concept experiment."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from torch_bgdebias._optional import require
from torch_bgdebias.concepts.experiment import ORIGINAL, ConceptTransfer
from torch_bgdebias.metrics.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)
from torch_bgdebias.probe.results.concepts import ConceptBackground, ConceptFit, ConceptTable, biased_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ConceptBackground", "analyse_concepts", "biased_pairs", "concept_heatmap", "concept_tables"]


def analyse_concepts(
    result: ConceptTransfer,
    layer: str,
    *,
    method: str = "net2vec",
    condition: str = ORIGINAL,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    correction: Literal["holm", "benjamini-hochberg"] = "holm",
    seed: int = 0,
) -> list[ConceptBackground]:
    """Compare every concept on every background category with its original backgrounds, image by image.

    Args:
        result: from `torch_bgdebias.concepts.concept_transfer`.
        layer: which layer's vectors.
        method: ``"net2vec"`` or ``"loce"``.
        condition: the backgrounds that the vectors were fitted on.
        confidence: of the bootstrap intervals.
        n_resamples: of the bootstrap and of the permutation tests.
        correction: of the p-values, over all concepts and all categories but the original.
        seed: of the bootstrap and of the permutation tests.

    Raises:
        ValueError: an unknown layer, method, condition or correction.
    """
    ious = result.values(layer, method, condition)
    rows = []
    for label, concept in enumerate(result.concepts):
        concept_ious = ious[result.labels == label]  # (samples of the concept, categories)
        for column, category in enumerate(result.categories[1:], start=1):
            settings: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
            test = paired_permutation_test(concept_ious[:, column], concept_ious[:, 0], **settings)
            settings["confidence"] = confidence
            iou, original = (bootstrap_mean(concept_ious[:, index], **settings) for index in (column, 0))
            difference = bootstrap_mean_difference(concept_ious[:, column], concept_ious[:, 0], **settings)
            drop = 1 - iou.value / original.value if original.value > 0 else math.nan
            rows.append(ConceptBackground(concept, category, iou, original, difference, drop, test.p_value, math.nan))
    corrected = correct_p_values([row.p_value for row in rows], correction)
    return [dataclasses.replace(row, corrected=float(p)) for row, p in zip(rows, corrected, strict=True)]


def concept_tables(result: ConceptTransfer, *, confidence: float = 0.95, seed: int = 0) -> list[ConceptTable]:
    """The tables that a report stores of an experiment, one per layer and method, with all fit conditions.

    Args:
        result: from `torch_bgdebias.concepts.concept_transfer`, with at least one category.
        confidence: of the bootstrap intervals.
        seed: of bootstrap and permutation tests.

    Raises:
        ValueError: no background category but the original.
    """
    if len(result.categories) < 2:
        raise ValueError("result: expected at least one background category besides the original, got none")
    tables = []
    for layer in result.layers:
        for method in result.methods:
            rows = analyse_concepts(result, layer, method=method, confidence=confidence, seed=seed)
            cosine = result.cosine_similarity(layer, method)[:, 0]  # (concepts, conditions)
            fits = []
            for column, condition in enumerate(result.conditions):
                ious = result.values(layer, method, condition)
                original, elsewhere = (
                    bootstrap_mean(x, confidence=confidence, seed=seed) for x in (ious[:, 0], ious[:, 1:].mean(1))
                )
                cosine_by_concept = dict(zip(result.concepts, cosine[:, column].tolist(), strict=True))
                fits.append(ConceptFit(condition, original, elsewhere, cosine_by_concept))
            tables.append(ConceptTable(layer, method, rows, fits))
    return tables


def concept_heatmap(rows: list[ConceptBackground], *, level: float = 0.05, title: str = "") -> Figure:
    """IoU of each concept (row) on each background (column) with intervals; * where it differs from the original.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows: expected at least one concept and background, got none")
    figure_module = require("matplotlib.figure", purpose="the figure of concepts")
    concepts = list(dict.fromkeys(row.concept for row in rows))
    categories = list(dict.fromkeys(row.category for row in rows))
    cells: dict[tuple[str, str], Interval] = {(row.concept, row.category): row.iou for row in rows}
    cells.update({(row.concept, ORIGINAL): row.original for row in rows})
    significant = {(row.concept, row.category) for row in rows if row.corrected <= level}
    columns = [ORIGINAL, *categories]
    table = np.array([[cells[concept, column].value for column in columns] for concept in concepts])
    figure: Figure = figure_module.Figure(figsize=(2.2 + 0.95 * len(columns), 1.6 + 0.5 * len(concepts)))
    axes = figure.subplots()
    high = max(float(np.nanmax(table, initial=0.0)), 1e-6)
    heatmap = axes.imshow(table, cmap="cividis", vmin=0, vmax=high, aspect="auto")
    for i, concept in enumerate(concepts):
        for j, column in enumerate(columns):
            cell = cells[concept, column]
            star = "*" if (concept, column) in significant else ""
            if math.isnan(cell.value):
                continue
            text = f"{cell.value:.2f}{star}\n{cell.low:.2f} to {cell.high:.2f}"
            colour = "white" if cell.value < 0.55 * high else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(concepts)), concepts)
    axes.axvline(0.5, color="white", linewidth=3)
    axes.set_title(title or f"Concept IoU by background (* corrected p <= {level:g})", fontsize=9)
    figure.colorbar(heatmap, ax=axes, label="IoU")
    figure.tight_layout()
    return figure
