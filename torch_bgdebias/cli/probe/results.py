"""Output of ``bgdebias probe`` beside the report: settings for the page and headline figures as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch_bgdebias.cli.probe.models import Candidate
from torch_bgdebias.preprocessing import Preprocessing
from torch_bgdebias.probe import BackgroundBiasReport, MaskSensitivity, ModelComparison

__all__ = ["SCHEMA", "SCHEMA_OF_SEVERAL", "headline", "headlines", "page_settings"]

#: name and version of the layout of what ``--json`` prints, of one model and of several
SCHEMA = "torch_bgdebias.probe/1"
SCHEMA_OF_SEVERAL = "torch_bgdebias.probe-models/1"


def page_settings(
    args: argparse.Namespace, rows: Sequence[Candidate], prepared: Sequence[Preprocessing]
) -> dict[str, Any]:
    """The command's own settings, for the page; of several models each one's."""
    settings: dict[str, Any] = {"model": _once_or_by_model(rows, [row.model for row in rows])}
    settings |= {"data": args.data, "layout": args.layout}
    if args.checkpoint:
        settings["checkpoint"] = _once_or_by_model(rows, [row.checkpoint for row in rows])
    else:
        settings["pretrained"] = args.pretrained
    settings["images are prepared"] = _once_or_by_model(rows, [preprocessing.describe() for preprocessing in prepared])
    if args.attributions:
        settings["explained class"] = args.target
    if "kernel_shap" in args.attributions:
        settings["kernel_shap"] = f"{args.shap_samples} coalitions, 7 x 7 superpixels, mean colour for absent ones"
    return {name: value if isinstance(value, bool) else str(value) for name, value in settings.items()}


def headline(
    report: BackgroundBiasReport,
    prepared: Preprocessing,
    files: Mapping[str, str],
    notes: Mapping[str, Any],
    masks: MaskSensitivity | None = None,
) -> dict[str, Any]:
    """The figures of one model that ``--json`` prints."""
    whole_report = report.to_dict()
    result = {
        "schema": SCHEMA,
        "model": report.model,
        "preprocessing": prepared.to_dict(),
        "bg_gap": whole_report["bg_gap"],
        "accuracy": {name: variant["accuracy"] for name, variant in whole_report["variants"].items()},
        "scores": whole_report["scores"],
        "worst_class": whole_report["worst_class"],
        "worst_group": whole_report["worst_group"],
        "counts": whole_report["counts"],
        "notes": dict(notes),
        "files": dict(files),
    }
    if masks is not None:
        result["masks"] = masks.to_dict()
    if report.concepts:
        result["biased_concepts"] = [pair for table in report.concepts for pair in table.biased_rows()]
    return result


def headlines(models: Sequence[dict[str, Any]], comparisons: Sequence[ModelComparison | None]) -> str:
    """What ``--json`` prints: of one model its figures, of several each one's and how they differ from the first."""
    result = models[0]
    if len(models) > 1:
        compared = [None if comparison is None else comparison.to_dict() for comparison in comparisons]
        result = {"schema": SCHEMA_OF_SEVERAL, "models": list(models), "comparisons": compared}
    return json.dumps(result, indent=1, allow_nan=False)


def _once_or_by_model(rows: Sequence[Candidate], values: Sequence[Any]) -> Any:
    if len(set(map(str, values))) == 1:
        return values[0]
    return "; ".join(f"{row.label}: {value}" for row, value in zip(rows, values, strict=True))
