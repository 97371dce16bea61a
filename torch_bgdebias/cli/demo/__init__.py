"""``bgdebias demo``: measure background bias, remove it, show both."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch_bgdebias.cli.arguments import real, require_inputs, whole
from torch_bgdebias.cli.options import Subparsers, add_command, add_options
from torch_bgdebias.names import DEMO_METHODS

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Train a small classifier on objects that always stand in front of the same category of scenes, measure how much of its
accuracy is the background, train it again with backgrounds exchanged, and write both into a report.

Without folders: scikit-learn's handwritten digits on scenes that are drawn here. Nothing is downloaded.
"""

_EPILOG = """\
folders:
  --foregrounds  images/<class>/x.jpg with masks/<class>/x.png (white: the object), or a folder with MNIST's files
                 (t10k-images-idx3-ubyte.gz and labels), whose strokes are the masks
  --backgrounds  <category>/x.jpg; every class gets a category of its own, the ones with the most pictures first

writes into --out:
  report.html            everything on one page that needs no network
  demo.json              settings, figures with intervals, curves, files
  report-<method>.json   the whole measurement of one model, per image

examples:
  bgdebias demo
  bgdebias demo --out my-demo --foregrounds objects --backgrounds scenes --size 64
  bgdebias demo --correlation 0.8 --methods baseline,swap,clad+
  bgdebias demo --json | python -m json.tool
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``demo`` to the command line."""
    parser = add_command(
        subparsers,
        "demo",
        about="train with and without background swapping on correlated backgrounds, and report both",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_options(parser, "--out", default=Path("bgdebias-demo"))
    add("--foregrounds", type=Path, metavar="DIR", help="objects with masks (default: scikit-learn's digits)")
    add("--backgrounds", type=Path, metavar="DIR", help="scenes by category (default: drawn)")
    add(
        "--correlation", type=real(0, 1), default=1.0, metavar="P", help="of class and scene in training (default: 1.0)"
    )
    add_options(parser, "--size", type=whole(16), default=32, help="side of the pictures (default: %(default)s)")
    add("--epochs", type=whole(1), default=4, metavar="N", help="passes over the samples (default: 4)")
    add("--samples", type=whole(4), default=8000, metavar="N", help="training images composed (default: 8000)")
    add_options(parser, "--seed")
    add("--clad-weight", type=real(0), default=1.0, metavar="X", help="lambda of CLAD and CLAD+ (default: 1.0)")
    add("--methods", type=_methods, default=list(DEMO_METHODS), metavar="A,B", help=_methods_help())
    add_options(parser, "--overwrite")
    add_options(parser, "--json", help="print demo.json to stdout instead of the summary")


def run(args: argparse.Namespace) -> int:
    """Train and measure every method, and write the report."""
    require_inputs(args, "foregrounds", "backgrounds")
    from torch_bgdebias.cli.demo.running import run_demo  # imports torch, which --help does without

    return run_demo(args)


def _methods(text: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in DEMO_METHODS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(DEMO_METHODS)}, got {text!r}")
    return names


def _methods_help() -> str:
    method_lines = "; ".join(f"{name}: {description}" for name, description in DEMO_METHODS.items())
    return f"what to train, the first is 'before' (default: all). {method_lines}"
