"""Options that several commands share, each defined once with one type and one help text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeAlias

from torch_bgdebias.cli.arguments import foreground_labels, labels, real, whole
from torch_bgdebias.names import MASK_ENCODINGS, ON_ERROR, SUPERCLASS_SCORES

__all__ = ["SHARED", "Subparsers", "add_command", "add_mask_options", "add_options", "mask_options"]

#: what a command's parser is added to
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_SWITCH: dict[str, Any] = {"action": "store_true"}
_COUNT: dict[str, Any] = {"type": whole(1), "metavar": "N"}
_CHANNELWISE: dict[str, Any] = {"type": float, "nargs": "+", "metavar": "X"}

#: option as the usage shows it -> arguments of ``add_argument``; a second word separates two of one name
SHARED: dict[str, dict[str, Any]] = {
    "--batch-size": {**_COUNT, "default": 64, "help": "pictures in a pass (default: %(default)s)"},
    "--channels": {
        "type": whole(1),
        "choices": (1, 3),
        "help": "grey or colour (default: what the first convolution takes)",
    },
    "--checkpoint": {"type": Path, "metavar": "FILE", "help": "state dict, or a training checkpoint that holds one"},
    "--classes A,B": {"type": labels, "metavar": "A,B", "help": "class folders to look at (default: all)"},
    "--classes N": {
        "type": whole(2),
        "metavar": "N",
        "help": "outputs of the model (default: the checkpoint's, else the data's)",
    },
    "--confidence": {
        "type": real(0.5, 0.9999),
        "default": 0.95,
        "metavar": "X",
        "help": "of the intervals (default: %(default)s)",
    },
    "--data": {"required": True, "type": Path, "metavar": "DIR", "help": "pictures with masks"},
    "--debug": {**_SWITCH, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS},
    "--device": {"metavar": "DEVICE", "help": "cpu, cuda, cuda:1, ... (default: cuda where there is one)"},
    "--images": {
        "type": whole(0),
        "default": 4000,
        "metavar": "N",
        "help": "most pictures to look at, 0 for all (default: %(default)s)",
    },
    "--json": {**_SWITCH, "help": "print the result as JSON instead of text"},
    "--labels": {"type": Path, "metavar": "FILE", "help": "JSON: the model's output, or outputs, of each class folder"},
    "--layout": {"choices": ("folder", "imagenet9", "voc"), "default": "folder", "help": "of --data (default: folder)"},
    "--logits": {"metavar": "KEY", "help": "index, key or attribute of the logits in what the model returns"},
    "--mean": {**_CHANNELWISE, "help": "normalisation, one number or one a channel"},
    "--model": {
        "required": True,
        "metavar": "MODEL",
        "help": "timm:NAME, torchvision:NAME or package.module:attribute",
    },
    "--name": {"metavar": "TEXT", "help": "of the model (default: MODEL, or its checkpoint)"},
    "--on-error": {
        "choices": ON_ERROR,
        "default": "raise",
        "help": "unreadable pictures, missing masks (default: %(default)s)",
    },
    "--out": {"type": Path, "metavar": "DIR", "help": "folder to write (default: %(default)s)"},
    "--overwrite": {**_SWITCH, "help": "replace results that are in --out already"},
    "--pretrained": {**_SWITCH, "help": "weights that timm or torchvision publish (downloads them)"},
    "--score": {
        "choices": SUPERCLASS_SCORES,
        "default": "best",
        "help": "of several outputs a class: their best one, or the sum of their probabilities (default: best)",
    },
    "--seed": {"type": whole(0), "default": 0, "metavar": "N", "help": "of everything random (default: 0)"},
    "--size": {**_COUNT, "help": "side of the pictures (default: the model's, else 224)"},
    "--std": {**_CHANNELWISE, "help": "goes with --mean"},
    "--unit": {
        "metavar": "COLUMN",
        "help": "pictures that are not independent (of a patient, a film), named like a group of bgdebias probe",
    },
    "--workers": {"type": whole(0), "default": 0, "metavar": "N", "help": "processes that read pictures (default: 0)"},
}


def add_command(
    subparsers: Subparsers, name: str, *, about: str, description: str, epilog: str
) -> argparse.ArgumentParser:
    """Add a command's parser; its texts are printed as written, without wrapping."""
    return subparsers.add_parser(
        name, help=about, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_options(parser: argparse.ArgumentParser, *names: str, **changes: Any) -> None:
    """Add options that several commands share.

    Args:
        parser: the command's.
        names: keys of ``SHARED``.
        changes: arguments of ``add_argument`` that are this command's own, such as the default, or the help where it
            says what of this command the option is about.
    """
    for name in names:
        parser.add_argument(name.partition(" ")[0], **{**SHARED[name], **changes})


def add_mask_options(parser: argparse.ArgumentParser, *, source: bool = True) -> None:
    """Options for where a folder's masks are, and for their encoding where it cannot be detected."""
    add = parser.add_argument_group("masks").add_argument
    if source:
        help_text = (
            "folder of masks, or what an annotation tool wrote: a file, a folder, a VOCdevkit (default: DIR/masks)"
        )
        add("--masks", type=Path, metavar="FILE_OR_DIR", help=help_text)
    help_text = "how masks say what is object (default: found out, or an error that shows what they hold)"
    add("--encoding", choices=MASK_ENCODINGS, default="auto", help=help_text)
    help_text = (
        "values, label numbers or #rrggbb that are object, of all classes or cat=8,dog=12; 0 turns inverted masks round"
    )
    add("--foreground", type=foreground_labels, metavar="A,B", help=help_text)
    add("--void", type=labels, metavar="A,B", help="those that are neither object nor background, '' for none")
    help_text = "what a mask's name has after its picture's: _mask for x_mask.png"
    add("--mask-suffix", default="", metavar="TEXT", help=help_text)


def mask_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``MaskedImageFolder`` that ``add_mask_options`` asked for."""
    return {
        "encoding": args.encoding,
        "foreground": args.foreground,
        "void": args.void,
        "mask_suffix": args.mask_suffix,
        "masks": args.masks,
    }
