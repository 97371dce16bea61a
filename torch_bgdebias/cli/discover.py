"""``bgdebias discover``: groups of pictures by where a trained model looks, without masks."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch_bgdebias.cli.arguments import refuse_half_units, refuse_results, require_inputs, usable_device, writable
from torch_bgdebias.cli.options import Subparsers, add_command, add_options

if TYPE_CHECKING:
    from torch import nn

    from torch_bgdebias.audit.pictures import Files
    from torch_bgdebias.models import LogitsKey
    from torch_bgdebias.named_models import LoadedModel
    from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["add_parser", "run"]

_DESCRIPTION = """\
Which pictures does a trained model recognise by something of their own? Heatmaps and embeddings are clustered class by
class, and the groups that stand furthest apart from the rest of their class are shown first, with their pictures and
with the place that the model looks at. No masks are needed. discover.html and discover.json are written into --out.
"""

_EPILOG = """\
The folder is images/<class>/x.jpg or <class>/x.jpg, and models are named as in bgdebias probe. At least 20 pictures of
a class are needed, and 200 show more. Needs scikit-learn (extra audit); zennit (extra lrp) shows small marks, Grad-CAM,
which stands in for it, only large ones. A group is no verdict: look at what its pictures share.

examples:
  bgdebias discover --model torchvision:resnet18 --checkpoint best.pt --data data/train
  bgdebias discover --model timm:resnet50 --checkpoint best.pt --data data/train --classes ship,plane --images 0
  bgdebias discover --model package.nets:make --data data/train --attribution grad_cam --layer layer3 --json
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``discover`` to the command line."""
    parser = add_command(
        subparsers,
        "discover",
        about="find what a trained model looks at, in groups of pictures, without masks",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_options(parser, "--model", "--checkpoint", "--pretrained", "--channels", "--logits")
    add_options(parser, "--data", help="pictures by class; what the model was trained on")
    add_options(parser, "--classes A,B", "--labels", "--score")
    add("--attribution", choices=("auto", "lrp", "grad_cam"), default="auto", help="default: lrp where zennit is there")
    add("--layer", metavar="LAYER", help="of Grad-CAM (default: found by itself)")
    add_options(parser, "--images", "--size", "--mean", "--std", "--device")
    add_options(parser, "--seed", help="of pictures and clusters (default: 0)")
    add_options(parser, "--name")
    add_options(parser, "--out", default=Path("bgdebias-discover"))
    add_options(parser, "--json", "--overwrite")


def run(args: argparse.Namespace) -> int:
    """Load, explain, cluster, write the page, print what stands apart."""
    require_inputs(args, "data", "checkpoint", "labels")
    if 0 < args.images < 20:
        raise ValueError(f"images: expected at least 20, or 0 for all, got {args.images}")
    refuse_half_units(args)
    from torch_bgdebias._optional import require
    from torch_bgdebias.audit import discover
    from torch_bgdebias.writing import marked_folder

    require("sklearn.cluster", purpose="bgdebias discover")
    opened = _opened(args)
    refuse_results(args.out, ("discover.html", "discover.json"), overwrite=args.overwrite)
    with marked_folder(writable(args.out, name="--out")):
        discovery = discover(
            opened.model,
            opened.source,
            preprocessing=opened.preprocessing,
            attribution=args.attribution,
            layer=args.layer,
            logits=opened.logits,
            images=args.images or None,
            seed=args.seed,
            say=lambda text: print(f"bgdebias discover: {text}", file=sys.stderr, flush=True),
        )
        page = args.out / "discover.html"
        name = args.name or (args.model if args.checkpoint is None else args.checkpoint.name)
        discovery.to_html(page, title=f"What {name} looks at")
        discovery.to_json(args.out / "discover.json")
    if args.json:
        print(json.dumps(discovery.to_dict(), indent=1, allow_nan=False))
    else:
        print(f"{discovery.summary()}\n\nOpen {page}")
    return 0


@dataclass(frozen=True)
class _Opened:
    """A model on its device, its pictures with the model's own numbers for classes, and how its answers are read."""

    model: nn.Module
    source: Files
    preprocessing: Preprocessing
    logits: LogitsKey


def _opened(args: argparse.Namespace) -> _Opened:
    import torch

    from torch_bgdebias.audit.pictures import picture_files
    from torch_bgdebias.cli.probe.models import channels_of, count_outputs, logits_key, ready_model, wanted_images
    from torch_bgdebias.cli.probe.outputs import read_labels, settle_outputs
    from torch_bgdebias.data.class_folders import warn_of_order

    source = picture_files(args.data, classes=args.classes or None)
    names = list(source.classes)
    table = None if args.labels is None else read_labels(args.labels, names)
    loaded, device = _loaded(args, len(names)), usable_device(args.device)
    model = ready_model(loaded.model, device)
    if table is None and loaded.classes is None:
        warn_of_order(source.root, names)
    preprocessing = wanted_images(args, loaded, channels_of(model, args.channels))
    key = logits_key(args.logits)
    grey = preprocessing(torch.full((3, 2, 2), 0.5))
    settled = settle_outputs(
        names,
        count_outputs(model, grey[None].to(device), key),
        table=table,
        known=loaded.classes,
        key=key,
        score=args.score,
        imagenet9=False,
    )
    source.classes = tuple(settled.names)
    source.labels = [settled.labels[label] for label in source.labels]
    return _Opened(model, source, preprocessing, settled.logits)


def _loaded(args: argparse.Namespace, classes: int) -> LoadedModel:
    """The model with its weights; without any, and for a look at the page alone, with as many outputs as classes."""
    from torch_bgdebias.named_models import load_model

    outputs = None
    if args.checkpoint is None and not args.pretrained:
        outputs = classes
        if args.model.startswith(("timm:", "torchvision:")):
            note = "neither --checkpoint nor --pretrained: the weights are random"
            print(f"bgdebias discover: note: {note}", file=sys.stderr)
    return load_model(
        args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained, channels=args.channels
    )
