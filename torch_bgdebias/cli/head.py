"""``bgdebias head``: fits a new last layer for a checkpoint on a masked folder."""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch_bgdebias.cli.arguments import (
    real,
    refuse_results,
    require_inputs,
    usable_device,
    whole,
    writable_file,
)
from torch_bgdebias.cli.options import Subparsers, add_command, add_mask_options, add_options, mask_options

if TYPE_CHECKING:
    from torch import nn

    from torch_bgdebias.data import MaskedImageFolder
    from torch_bgdebias.heads import DebiasedHead, HeadFigures
    from torch_bgdebias.preprocessing import Preprocessing

__all__ = ["SCHEMA", "add_parser", "calibration_warnings", "criterion", "run"]

#: name and version of the layout of what ``--json`` prints
SCHEMA = "torch_bgdebias.head/1"

#: by how much the calibration error has to grow for a warning
_WORSE = 0.02

_DESCRIPTION = """\
Fit the last layer of a network anew, on pictures and on the same objects before other pictures' backgrounds. The rest
of the network stays as it is, so this takes about as long as a few passes over the data. Measure the result with
bgdebias probe.
"""

_EPILOG = """\
The folder is images/<class>/x.jpg with masks/<class>/x.png (bgdebias masks makes masks): the training data, not what
the result is measured on. Models are named as in bgdebias probe. The file that is written holds the state dict for the
same MODEL with the number of classes that is printed, and notes how images enter and what the classes are called, so
that bgdebias probe measures it as it was fitted.

examples:
  bgdebias head --model torchvision:resnet18 --checkpoint best.pt --data data/train --out fixed.pt
  bgdebias probe --model torchvision:resnet18 --checkpoint fixed.pt --data data/test
  bgdebias head --model timm:resnet50 --pretrained --data data/train --out animals.pt
"""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``head`` to the command line."""
    parser = add_command(
        subparsers,
        "head",
        about="fit a network's last layer anew, against its background bias",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add_options(parser, "--model", "--checkpoint", "--pretrained", "--data")
    add_options(parser, "--out", required=True, metavar="FILE", help="checkpoint to write")
    add_options(parser, "--overwrite", help="where --out exists already")
    add("--copies", type=whole(1), default=4, metavar="N", help="other backgrounds a picture (default: %(default)s)")
    about = "of the pictures as they are, beside 1 for all copies (default: %(default)s)"
    add("--original-weight", type=real(0), default=0.5, metavar="X", help=about)
    about = "to choose from, separated by commas (default: 0.03,0.1,0.3,1,3, and on while the last one is best)"
    add("--penalties", type=_penalties, metavar="X,X", help=about)
    add("--layer", metavar="LAYER", help="the last linear layer (default: found by itself)")
    add_options(parser, "--size", "--mean", "--std")
    add_options(parser, "--batch-size", type=whole(2))  # backgrounds are those of the batch
    add_options(parser, "--workers", "--device")
    add_options(parser, "--seed", help="of backgrounds and folds (default: 0)")
    add_options(parser, "--json")
    add_mask_options(parser)


def _penalties(text: str) -> tuple[float, ...]:
    """Numbers above 0, separated by commas."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(0 < value < math.inf for value in values):
        raise argparse.ArgumentTypeError(f"expected numbers above 0, separated by commas, got {text}")
    return values


def run(args: argparse.Namespace) -> int:
    """Load, fit, write the state dict, print what was chosen."""
    require_inputs(args, "data", "checkpoint", "masks")
    writable_file(args.out, name="--out")
    from torch_bgdebias.checkpoints import NOTES, notes_for_checkpoint
    from torch_bgdebias.heads.logistic import words_on_end
    from torch_bgdebias.writing import save_content

    model, preprocessing, pictures = _opened(args)
    refuse_results(args.out, (), overwrite=args.overwrite)
    fitted = _fitted(args, model, pictures)
    notes = notes_for_checkpoint(preprocessing, pictures.classes)
    save_content({"state_dict": fitted.apply_(model).state_dict(), NOTES: notes}, args.out)
    result = {
        "schema": SCHEMA,
        "out": str(args.out),
        "layer": fitted.layer,
        "classes": pictures.classes,
        "images": fitted.images,
        "penalty": fitted.penalty,
        "preprocessing": preprocessing.to_dict(),
        "scores": [score._asdict() for score in fitted.scores],
        "criterion": criterion(fitted, args.original_weight) if fitted.scores else None,
        "best_at_end": fitted.best_at_end,
        "temperature": fitted.temperature,
        "before": _as_dict(fitted.before),
        "after": _as_dict(fitted.after),
    }
    print(json.dumps(result, indent=1) if args.json else _text(args, fitted, preprocessing, len(pictures.classes)))
    for note in [words_on_end(fitted.scores), *calibration_warnings(fitted)]:
        if note:
            print(f"bgdebias head: note: {note}", file=sys.stderr)
    return 0


def _opened(args: argparse.Namespace) -> tuple[nn.Module, Preprocessing, MaskedImageFolder]:
    """The network on its device, how images enter it, and the folder's pictures in those units."""
    from torch_bgdebias.cli.probe.outputs import outputs_by_name
    from torch_bgdebias.data import MaskedImageFolder
    from torch_bgdebias.named_models import load_model

    if args.checkpoint is None and not args.pretrained and args.model.startswith(("timm:", "torchvision:")):
        print("bgdebias head: note: neither --checkpoint nor --pretrained: the weights are random", file=sys.stderr)
    masks = mask_options(args)
    classes: list[str] = MaskedImageFolder(args.data, with_void=True, **masks).classes
    outputs = None if args.pretrained else len(classes)
    loaded = load_model(args.model, num_classes=outputs, checkpoint=args.checkpoint, pretrained=args.pretrained)
    if args.checkpoint is not None and loaded.classes is not None:
        places = outputs_by_name(classes, loaded.classes)
        if places is None or len(loaded.classes) != len(classes):
            was, here = ", ".join(loaded.classes), ", ".join(classes)
            raise ValueError(
                f"data: expected the classes that {args.checkpoint} was trained on ({was}), got {here}; if they are "
                "the same rename the folders"
            )
        classes = [classes[places.index(output)] for output in range(len(classes))]  # its outputs stay in their order
    preprocessing = loaded.preprocessing
    if args.mean is not None or args.std is not None:
        preprocessing = replace(preprocessing, mean=args.mean, std=args.std, source="--mean and --std")
    preprocessing = replace(preprocessing, size=args.size or preprocessing.size or 224)
    pictures = MaskedImageFolder(args.data, transform=preprocessing, classes=classes, with_void=True, **masks)
    return loaded.model.to(usable_device(args.device)), preprocessing, pictures


def _fitted(args: argparse.Namespace, model: nn.Module, pictures: MaskedImageFolder) -> DebiasedHead:
    import torch
    from torch.utils.data import DataLoader

    from torch_bgdebias.heads import fit_debiased_head

    order = torch.Generator().manual_seed(args.seed)  # shuffled: the other backgrounds are those of the batch
    loader = DataLoader(pictures, batch_size=args.batch_size, shuffle=True, num_workers=args.workers, generator=order)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "penalties: the best one")  # `run` says it, whether clear or not
        return fit_debiased_head(
            model,
            loader,
            copies=args.copies,
            original_weight=args.original_weight,
            penalties=args.penalties,
            layer=args.layer,
            num_classes=len(pictures.classes),
            seed=args.seed,
        )


def _text(args: argparse.Namespace, fitted: DebiasedHead, preprocessing: Preprocessing, classes: int) -> str:
    lines = [
        f"last layer {fitted.layer}: {classes} classes, {fitted.images} pictures and {args.copies} copies of each",
        "penalty   accuracy as it is   on other backgrounds   both   (balanced, by cross-validation)",
    ]
    for score in fitted.scores:
        mark = "  <- chosen" if score.penalty == fitted.penalty else ""
        shares = f"{100 * score.original:>14.1f} % {100 * score.swapped:>20.1f} % {100 * score.both:>6.1f} %"
        lines.append(f"{score.penalty:<9g} {shares}{mark}")
    lines += [criterion(fitted, args.original_weight)] if fitted.scores else []
    lines += _figures(fitted)
    return "\n".join([*lines, "", f"Images enter as: {preprocessing.describe()}", f"Wrote {args.out}"])


def criterion(fitted: DebiasedHead, original_weight: float) -> str:
    """By what the penalty was chosen, with its values."""
    best = max(fitted.scores, key=lambda score: score.both)
    least = 100 * (best.both - best.error)
    return (
        f"both: pictures as they are weigh {original_weight:g} and copies 1. Chosen: the strongest penalty within one "
        f"standard error of the best, at least {100 * best.both:.1f} - {100 * best.error:.1f} = {least:.1f} %."
    )


def _figures(fitted: DebiasedHead) -> list[str]:
    """The last layers before and after beside each other; nothing where the new one was not measured."""
    if fitted.after is None:
        return []
    lines = ["", "last layer   pictures as they are: right, sure, ECE   on other backgrounds: right, sure, ECE"]
    for name, figures in (("before", fitted.before), ("after", fitted.after)):
        if figures is not None:
            cells = [
                f"{100 * of.accuracy:>8.1f} % {100 * of.confidence:>6.1f} % {of.calibration_error:>6.3f}"
                for of in figures
            ]
            lines.append(f"{name:<12} {cells[0]:>40}   {cells[1]:>39}")
    lines.append(
        "sure: mean probability of the answer; ECE: expected calibration error. Before: the layer that was there; its "
        "network may have learned these pictures. After: each picture by a layer fitted without it, temperature "
        f"{fitted.temperature:.3g}."
    )
    return lines


def calibration_warnings(fitted: DebiasedHead) -> list[str]:
    """Warnings of pictures on which the new layer's probabilities are calibrated worse than the old one's were."""
    if fitted.before is None or fitted.after is None:
        return []
    notes = []
    for where, old, new in zip(("as they are", "on other backgrounds"), fitted.before, fitted.after, strict=True):
        if new.calibration_error > old.calibration_error + _WORSE:
            side = "less" if new.confidence < new.accuracy else "more"
            notes.append(
                f"on pictures {where} the calibration error goes from {old.calibration_error:.3f} to "
                f"{new.calibration_error:.3f}: the answers are {side} sure ({new.confidence:.0%}) than right "
                f"({new.accuracy:.0%}); where probabilities are used, fit a temperature on pictures of that kind, or "
                "choose --original-weight by how often they occur"
            )
    return notes


def _as_dict(figures: HeadFigures | None) -> dict[str, Any] | None:
    return None if figures is None else {name: of._asdict() for name, of in figures._asdict().items()}
