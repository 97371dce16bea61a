"""``bgdebias plan``: how many images a measurement needs."""

from __future__ import annotations

import argparse
import json
from typing import Any

from torch_bgdebias.cli.arguments import real, whole
from torch_bgdebias.cli.options import Subparsers, add_command, add_options

__all__ = ["SCHEMA", "add_parser", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.plan/1"

_DESCRIPTION = """\
How many images show a gap of some size, and how many make an interval as narrow as wanted. With --images: what a set of
that size shows. Nothing is drawn: the power is summed over all outcomes of the rule that a report goes by.
"""

#: half the width of an interval that is taken without a word, at most
_WIDEST = 0.1

_EPILOG = """\
What counts are images that change sides between two backgrounds, or between two models: --changed says how many, in
one direction or the other. A report of a similar model shows it; without it, halfway between the fewest that make the
gap and as many as if both answers had nothing to do with each other.

examples:
  bgdebias plan --gap 0.05 --accuracy 0.8
  bgdebias plan --gap 0.05 --accuracy 0.8 --group-size 4 --correlation 0.5
  bgdebias plan --gap 0.05 --accuracy 0.8 --images 359
  bgdebias plan --gap 0.02 --accuracy 0.95 --changed 0.04 --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``plan`` to the command line."""
    parser = add_command(
        subparsers,
        "plan",
        about="how many images show a gap, or make an interval narrow enough",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--gap", type=real(0, 1), default=0.05, metavar="X", help="to be shown, as a share (default: 0.05)")
    add("--accuracy", type=real(0, 1), default=0.8, metavar="X", help="where it is higher (default: 0.8)")
    add("--changed", type=real(0, 1), metavar="X", help="share of images that change sides (default: see below)")
    add("--power", type=real(0.01, 0.9999), default=0.8, metavar="X", help="chance of showing it (default: 0.8)")
    add("--half-width", type=real(0.0001, 0.4999), metavar="X", help="of the intervals (default: the gap, at most 0.1)")
    add("--images", type=whole(2), metavar="N", help="say what so many images show, beside what is needed")
    add("--group-size", type=whole(1), default=1, metavar="N", help="images of one patient, film, ... (default: 1)")
    help_text = "of images within a group, 0 to 1 (with --group-size)"
    add("--correlation", type=real(0, 1), metavar="X", help=help_text)
    add_options(parser, "--confidence", "--json")


def run(args: argparse.Namespace) -> int:
    """Compute and print."""
    from torch_bgdebias.metrics import gap_power, images_for_gap, images_for_interval, usual_changes

    if (args.group_size > 1) != (args.correlation is not None):
        raise ValueError("--group-size and --correlation: expected both or none")
    changed = usual_changes(args.gap, args.accuracy) if args.changed is None else args.changed
    grouped: dict[str, Any] = {
        "group_size": args.group_size,
        "correlation": args.correlation or 0.0,
        "confidence": args.confidence,
    }
    half = min(args.gap, _WIDEST) if args.half_width is None else args.half_width
    assumptions = {"gap": args.gap, "accuracy": args.accuracy, "changed": changed, **grouped}
    needed = {
        "gap_shown": images_for_gap(power=args.power, **assumptions),
        "models_differ": images_for_gap(power=args.power, rule="test", **assumptions),
        "accuracy_interval": images_for_interval(half, args.accuracy, **grouped),
        "gap_interval": images_for_interval(half, args.accuracy, gap=args.gap, changed=changed, **grouped),
    }
    power = None
    if args.images is not None:
        power = {
            "gap_shown": gap_power(args.images, **assumptions),
            "models_differ": gap_power(args.images, rule="test", **assumptions),
        }
    if args.json:
        plans = {
            name: {"images": plan.images, "groups": plan.groups, "reached": plan.reached}
            for name, plan in needed.items()
        }
        settings = {**assumptions, "power": args.power, "half_width": half, "images": args.images}
        print(json.dumps({"schema": SCHEMA, "asked": settings, "needed": plans, "power_of_images": power}, indent=1))
        return 0
    groups = f" in {{}} groups of {args.group_size}" if args.group_size > 1 else ""
    images_text = {name: f"{plan.images:,} images{groups.format(f'{plan.groups:,}')}" for name, plan in needed.items()}
    gap, chance, level = f"{100 * args.gap:g} points", f"{100 * args.power:g} %", f"{100 * args.confidence:g} %"
    print(
        f"accuracy {100 * args.accuracy:g} %, of the images {100 * changed:.3g} % change sides; {level} intervals\n"
        f"  a BG-Gap of {gap} is shown with power {chance} by {images_text['gap_shown']}\n"
        f"  two models that differ by {gap} in accuracy are told apart with power {chance} by "
        f"{images_text['models_differ']}\n  the accuracy's interval is no wider than +- {100 * half:g} points with "
        f"{images_text['accuracy_interval']}\n  the BG-Gap's interval is no wider than +- {100 * half:g} points with "
        f"{images_text['gap_interval']}"
    )
    if power is not None:
        print(
            f"  {args.images:,} images show such a gap with power {100 * power['gap_shown']:.0f} %, "
            f"and tell such models apart with {100 * power['models_differ']:.0f} %"
        )
    return 0
