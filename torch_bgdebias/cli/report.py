"""``bgdebias report``: a page from measurements saved as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from torch_bgdebias.cli.arguments import refuse_results, require_inputs, writable_file
from torch_bgdebias.cli.colours import tell
from torch_bgdebias.cli.options import Subparsers, add_command, add_options

__all__ = ["add_parser", "run"]

_EPILOG = """\
The first file is "before". Models measured on the same images are compared in pairs.

examples:
  bgdebias report model.json
  bgdebias report before.json after.json --out fixed.html --title "Ships and planes"
  bgdebias report bgdebias-demo/report-baseline.json bgdebias-demo/report-swap.json --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``report`` to the command line."""
    parser = add_command(
        subparsers,
        "report",
        about="write an HTML report from the JSON files of measurements",
        description="Write one self-contained HTML page about one model, or about several side by side.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="what BackgroundBiasReport.to_json or to_parquet wrote"
    )
    add_options(parser, "--out", default=Path("report.html"), metavar="FILE", help="default: %(default)s")
    add_options(parser, "--overwrite", help="replace the page where --out exists already")
    parser.add_argument("--title", default="Background bias report", help="of the page (default: %(default)s)")
    add_options(parser, "--json", help="print the headline figures as JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Read the files, write the page, print the summaries."""
    require_inputs(args, "files=FILE")
    from torch_bgdebias.probe import BackgroundBiasReport, compare_models
    from torch_bgdebias.probe.results.pairing import nothing_in_common

    writable_file(args.out, name="--out")
    reports = [
        BackgroundBiasReport.from_parquet(file) if file.suffix == ".parquet" else BackgroundBiasReport.from_json(file)
        for file in args.files
    ]
    refuse_results(args.out, (), overwrite=args.overwrite)
    if len({report.model for report in reports}) < len(reports):  # before and after of one file's name
        for report, file in zip(reports, args.files, strict=True):
            report.model = f"{report.model} ({file})"
    comparisons = compare_models(reports)
    reports[0].to_html(args.out, others=reports[1:], title=args.title, comparisons=comparisons)
    if args.json:
        result = {
            "schema": "torch_bgdebias.headlines/2",
            "html": str(args.out),
            "models": [{"file": str(f), **_headline(r.to_dict())} for f, r in zip(args.files, reports, strict=True)],
            "comparisons": [None if c is None else c.to_dict() for c in comparisons],
        }
        print(json.dumps(result, indent=1, allow_nan=False))
    else:
        texts = [report.summary() for report in reports]
        for report, comparison in zip(reports[1:], comparisons, strict=True):
            texts.append(nothing_in_common(reports[0], report) if comparison is None else comparison.summary())
        tell("\n\n".join(texts) + f"\n\nOpen {args.out}", sys.stdout)
    return 0


def _headline(report: dict[str, Any]) -> dict[str, Any]:
    from torch_bgdebias.probe import ConceptTable

    accuracy = {name: variant["accuracy"] for name, variant in report["variants"].items()}
    headline = {"model": report["model"], "bg_gap": report["bg_gap"], "accuracy": accuracy}
    if report["concepts"]:
        tables = [ConceptTable.from_dict(table) for table in report["concepts"]]
        headline["biased_concepts"] = [pair for table in tables for pair in table.biased_rows()]
    return headline
