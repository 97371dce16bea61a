"""``bgdebias certify``: a lower bound on the accuracy on backgrounds drawn from one folder."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torch_bgdebias.cli.arguments import (
    refuse_half_units,
    refuse_results,
    require_inputs,
    usable_device,
    whole,
    writable,
)
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Put every object on several backgrounds that are drawn from a folder, and say how many objects, at least, the model gets
right on a background drawn from there. Writes certificate.html and certificate.json into --out.
"""

_EPILOG = """\
The objects have to be a random sample of those that the certificate shall be about, and neither they nor the
backgrounds may have been used to train or to choose the model. What the certificate covers, and that it covers nothing
else, stands in it. The folder of pictures and the model are named as in bgdebias probe.

examples:
  bgdebias certify --model torchvision:resnet18 --checkpoint best.pt --data data/test --backgrounds streets
  bgdebias certify --model timm:resnet18 --checkpoint xray.pt --data chest --backgrounds wards --per-object 4 --once
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``certify`` to the command line."""
    parser = add_command(
        subparsers,
        "certify",
        about="a lower bound for accuracy on backgrounds drawn from one source",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_options(parser, "--model", "--checkpoint", "--pretrained", "--classes N", "--channels", "--logits", "--data")
    add_options(parser, "--layout", "--labels", "--score", "--on-error", "--size", "--mean", "--std")
    add("--backgrounds", required=True, type=Path, metavar="DIR", help="the source: pictures without the objects")
    add("--source", metavar="TEXT", help="what the source is called in the certificate (default: the folder's name)")
    add("--per-object", type=whole(1), default=8, metavar="M", help="backgrounds for each object (default: 8)")
    help_text = "no background for two draws: then it is about whatever the folder is a random sample of"
    add("--once", action="store_true", help=help_text)
    add_options(parser, "--unit")
    add_options(parser, "--confidence", help="of the bound (default: %(default)s)")
    add_options(parser, "--batch-size", "--workers", "--device")
    add_options(parser, "--seed", help="of the draws (default: 0)")
    add_options(parser, "--name")
    add_options(parser, "--out", default=Path("bgdebias-certify"))
    add_options(parser, "--json", "--overwrite")
    add_mask_options(parser)
    parser.set_defaults(variants=None, remake=True, attributions=[])  # pictures as they are


def run(args: argparse.Namespace) -> int:
    """Load, draw, certify, write."""
    require_inputs(args, "data", "backgrounds", "checkpoint", "labels", "masks")
    from torch.utils.data import DataLoader

    from torch_bgdebias.backgrounds import BackgroundBank
    from torch_bgdebias.cli.probe.data import SPEC, class_names
    from torch_bgdebias.cli.probe.grouping import one_unit
    from torch_bgdebias.cli.probe.models import Candidate
    from torch_bgdebias.cli.probe.outputs import read_labels
    from torch_bgdebias.cli.probe.running import open_candidate
    from torch_bgdebias.cli.progress import progress
    from torch_bgdebias.probe import certify_backgrounds
    from torch_bgdebias.writing import marked_folder

    refuse_half_units(args)
    if not args.backgrounds.is_dir():
        raise FileNotFoundError(f"backgrounds: expected a folder of pictures, got {args.backgrounds}")
    names, device = class_names(args), usable_device(args.device)
    table = None if args.labels is None else read_labels(args.labels, names)
    candidate = Candidate(args.model, args.checkpoint, _weights_named(args))
    data = (opened := open_candidate(args, candidate, names, table, device)).data
    refuse_results(args.out, ("certificate.html", "certificate.json"), overwrite=args.overwrite)
    channels = len(data.dataset[0]["image"])
    bank = BackgroundBank.from_folder(args.backgrounds, data.side, channels=channels, on_error=args.on_error)
    certificate = certify_backgrounds(
        opened.model,
        DataLoader(data.dataset, batch_size=args.batch_size, num_workers=args.workers),
        bank.images,
        source=args.source or args.backgrounds.resolve().name,
        per_object=args.per_object,
        once=args.once,
        class_names=opened.outputs.names,
        name=candidate.label,
        progress=progress,
        spec=SPEC,
        num_classes=len(opened.outputs.names),
        mean=data.preprocessing.mean,
        std=data.preprocessing.std,
        seed=args.seed,
        logits=opened.outputs.logits,
        ids="id",
        confidence=args.confidence,
        unit=None if args.unit is None else one_unit(args.unit, data.dataset.items, args.data),
    )
    with marked_folder(writable(args.out, name="--out")) as out:
        certificate.to_json(out / "certificate.json")
        page = certificate.to_html(out / "certificate.html")
    print(json.dumps(certificate.to_dict(), indent=1) if args.json else f"{certificate.summary()}\n\nOpen {page}")
    return 0


def _weights_named(args: argparse.Namespace) -> str:
    """The weights in words: a certificate of a recipe would be one of nothing."""
    if args.name:
        return str(args.name)
    return str(args.model if args.checkpoint is None else args.checkpoint.name)
