"""Measuring a classifier's background bias: evaluation, report, Lightning callback."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BackgroundBiasProbe": "callback",
    "BackgroundBiasReport": "results",
    "Change": "comparison",
    "ClassChange": "comparison",
    "ClassResult": "results",
    "ConceptBackground": "concept_results",
    "ConceptFit": "concept_results",
    "ConceptTable": "concept_results",
    "Estimate": "results",
    "Example": "results",
    "ImageResults": "results",
    "ModelComparison": "comparison",
    "ScoreResult": "results",
    "VariantResult": "results",
    "analyse_concepts": "concepts",
    "biased_pairs": "concept_results",
    "compare_models": "comparison",
    "compare_reports": "aggregate",
    "concept_heatmap": "concepts",
    "concept_tables": "concepts",
    "evaluate_background_bias": "evaluation",
    "report_figures": "report",
    "report_to_html": "report",
    "summarise": "aggregate",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
