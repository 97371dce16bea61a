"""Measuring a classifier's background bias: evaluation, report, Lightning callback."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BackgroundBiasProbe": "callback",
    "BackgroundBiasReport": "results.measurement",
    "Change": "results.comparison",
    "ClassChange": "results.comparison",
    "ClassResult": "results.measurement",
    "ConceptBackground": "results.concepts",
    "ConceptFit": "results.concepts",
    "ConceptTable": "results.concepts",
    "Estimate": "results.measurement",
    "Example": "results.measurement",
    "ImageResults": "results.measurement",
    "ModelComparison": "results.comparison",
    "ScoreResult": "results.measurement",
    "VariantResult": "results.measurement",
    "analyse_concepts": "concepts",
    "biased_pairs": "results.concepts",
    "compare_models": "results.comparison",
    "compare_reports": "results.aggregate",
    "concept_heatmap": "concepts",
    "concept_tables": "concepts",
    "evaluate_background_bias": "evaluation",
    "report_figures": "report",
    "report_to_html": "report",
    "summarise": "results.aggregate",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
