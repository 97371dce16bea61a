"""What ``bgdebias probe`` tells beside the measurement itself: settings for the page, headline figures as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from torch_bgdebias.probe import BackgroundBiasReport

__all__ = ["SCHEMA", "headline", "page_settings"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.probe/1"


def page_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The command's own settings, for the page."""
    settings: dict[str, Any] = {"model": args.model, "data": args.data, "layout": args.layout}
    settings |= {"checkpoint": args.checkpoint} if args.checkpoint else {"pretrained": args.pretrained}
    if args.attributions:
        settings["explained class"] = args.target
    if "kernel_shap" in args.attributions:
        settings["kernel_shap"] = f"{args.shap_samples} coalitions, 7 x 7 superpixels, mean colour for absent ones"
    return {name: value if isinstance(value, bool) else str(value) for name, value in settings.items()}


def headline(report: BackgroundBiasReport, files: Mapping[str, str], notes: Mapping[str, Any]) -> str:
    """The figures that ``--json`` prints."""
    whole_report = report.to_dict()
    result = {
        "schema": SCHEMA,
        "model": report.model,
        "bg_gap": whole_report["bg_gap"],
        "accuracy": {name: variant["accuracy"] for name, variant in whole_report["variants"].items()},
        "scores": whole_report["scores"],
        "counts": whole_report["counts"],
        "notes": dict(notes),
        "files": dict(files),
    }
    if report.concepts:
        result["biased_concepts"] = [pair for table in report.concepts for pair in table.told()]
    return json.dumps(result, indent=1, allow_nan=False)
