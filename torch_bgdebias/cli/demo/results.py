"""Output of the demo: settings for its page, demo.json, and the summary on the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from torch_bgdebias.cli.demo.data import DemoData
from torch_bgdebias.cli.demo.training import Trained
from torch_bgdebias.names import DEMO_METHODS
from torch_bgdebias.probe import BackgroundBiasReport

__all__ = ["README_SECONDS", "SCHEMA", "demo_result", "demo_settings", "demo_summary"]

#: name and version of the layout of ``demo.json`` and of what ``--json`` prints
SCHEMA = "torch_bgdebias.demo/1"
#: time that README says the demo takes as it is by default: so many epochs, samples and pixels
README_SECONDS = 35
_DEFAULT = (4, 8000, 32)


def demo_settings(args: argparse.Namespace, data: DemoData) -> dict[str, Any]:
    """The options and the resulting data, for the page."""
    pairs = ", ".join(f"{c}: {s.replace('_', ' ')}" for c, s in zip(data.classes, data.categories, strict=True))
    return {
        "foregrounds": data.sources["foregrounds"],
        "backgrounds": data.sources["backgrounds"],
        "scene of each class": pairs,
        "correlation in training": args.correlation,
        "image size": args.size,
        "training": f"{args.epochs} epochs of {data.counts['training_samples']:,} samples, seed {args.seed}",
        **({"lambda of CLAD": args.clad_weight} if any(m.startswith("clad") for m in args.methods) else {}),
        **{name: number for name, number in data.counts.items() if name != "training_samples"},
        **({"notes": " ".join(data.notes)} if data.notes else {}),
    }


def demo_result(
    args: argparse.Namespace,
    data: DemoData,
    trained: dict[str, Trained],
    reports: dict[str, BackgroundBiasReport],
    files: dict[str, str],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The content of demo.json."""
    methods = []
    for name, report in reports.items():
        content = report.to_dict()
        methods.append(
            {
                "name": name,
                "label": report.model,
                "train_seconds": round(trained[name].seconds, 2),
                "curves": trained[name].curves,
                **{
                    part: content[part]
                    for part in ("bg_gap", "variants", "per_class", "counts", "settings", "versions")
                },
            }
        )
    names = ("correlation", "size", "epochs", "samples", "seed", "clad_weight", "methods")
    return {
        "schema": SCHEMA,
        "arguments": {name: getattr(args, name) for name in names},
        "data": {
            "classes": list(data.classes),
            "categories": list(data.categories),
            "counts": data.counts,
            "sources": data.sources,
            "notes": data.notes,
        },
        "methods": methods,
        "files": files,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def demo_summary(
    args: argparse.Namespace, reports: Sequence[BackgroundBiasReport], files: dict[str, str], seconds: float
) -> str:
    """A line a method, for the terminal; how long it took, beside what README says of the demo as it is by default."""
    as_it_is = args.foregrounds is None and args.backgrounds is None and len(reports) == len(DEMO_METHODS)
    as_it_is = as_it_is and (args.epochs, args.samples, args.size) == _DEFAULT
    beside = f" (README: {README_SECONDS} s)" if as_it_is else ""
    width = max(len(r.model) for r in reports)
    lines = [f"{'':<{width}}  {'own scenes, %':<20}  {'random scenes, %':<20}  BG-Gap, points"]
    for report in reports:
        figures = [report.variants[v].accuracy.percent() for v in ("mixed_same", "mixed_rand")]
        gap = report.bg_gap.percent() if report.bg_gap is not None else "-"
        lines.append(f"{report.model:<{width}}  {figures[0]:<20}  {figures[1]:<20}  {gap}")
    lines.append(
        f"\n{len(reports[0].images)} test images, 95 % intervals, {seconds:.0f} s{beside}. Open {files['html']}"
    )
    return "\n".join(lines)
