"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch_bgdebias.names import MASK_ENCODINGS

if TYPE_CHECKING:
    import torch

__all__ = [
    "add_mask_arguments",
    "add_model_arguments",
    "add_overwrite_argument",
    "choices",
    "labels",
    "mask_options",
    "real",
    "refuse_results",
    "require_inputs",
    "usable_device",
    "whole",
    "writable",
]


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least ``least``."""

    def number(text: str) -> int:
        if not text.strip().lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
        return int(text)

    return number


def real(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A finite number of at least ``least`` and, where given, at most ``most``."""
    wanted = f"of at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or value == math.inf:
            raise argparse.ArgumentTypeError(f"expected a number {wanted}, got {text}")
        return value

    return number


def choices(known: Collection[str]) -> Callable[[str], list[str]]:
    """Names separated by commas, each one of ``known``; an empty text is no name."""

    def names(text: str) -> list[str]:
        given = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if unknown := [name for name in given if name not in known]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
        return given

    return names


def labels(text: str) -> list[str]:
    """Values, label numbers or colours separated by commas; an empty text is none."""
    return [label.strip() for label in text.split(",") if label.strip()]


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, with which weights."""
    add = parser.add_argument
    add("--model", required=True, metavar="MODEL", help="timm:NAME, torchvision:NAME or package.module:attribute")
    add("--checkpoint", type=Path, metavar="FILE", help="state dict, or a training checkpoint that holds one")
    add("--pretrained", action="store_true", help="weights that timm or torchvision publish (downloads them)")


def add_mask_arguments(parser: argparse.ArgumentParser, *, source: bool = True) -> None:
    """Where the masks of a folder are, and how they are to be read where they do not say it themselves."""
    add = parser.add_argument_group("masks").add_argument
    if source:
        about = "folder of masks, or what an annotation tool wrote: a file, a folder, a VOCdevkit (default: DIR/masks)"
        add("--masks", type=Path, metavar="FILE_OR_DIR", help=about)
    about = "how masks say what is object (default: found out, or an error that shows what they hold)"
    add("--encoding", choices=MASK_ENCODINGS, default="auto", help=about)
    about = "values, label numbers or #rrggbb that are object; 0 turns inverted masks round"
    add("--foreground", type=labels, metavar="A,B", help=about)
    add("--void", type=labels, metavar="A,B", help="those that are neither object nor background, '' for none")
    about = "what a mask's name has after its picture's: _mask for x_mask.png"
    add("--mask-suffix", default="", metavar="TEXT", help=about)


def mask_options(args: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of ``MaskedImageFolder`` that ``add_mask_arguments`` asked for."""
    return {
        "encoding": args.encoding,
        "foreground": args.foreground,
        "void": args.void,
        "mask_suffix": args.mask_suffix,
        "masks": args.masks,
    }


def add_overwrite_argument(parser: argparse.ArgumentParser) -> None:
    """What replaces results that are there already."""
    parser.add_argument("--overwrite", action="store_true", help="replace results that are in --out already")


def refuse_results(out: Path, files: Collection[str], *, overwrite: bool) -> None:
    """Refuse a folder that holds results of a run that came to its end; one that was stopped is written anew.

    Args:
        out: the folder, or the file itself where ``files`` is empty.
        files: names of the results in it.
        overwrite: whether the user wants them replaced.

    Raises:
        FileExistsError: some of them are there.
    """
    there = [name for name in files if (out / name).exists()] if files else [out.name] if out.is_file() else []
    if not there or overwrite:
        return
    from torch_bgdebias.writing import is_unfinished

    if not is_unfinished(out):
        where = f"{out} holds {', '.join(there)}" if files else f"{out} exists"
        raise FileExistsError(f"--out: {where} already; pass --overwrite or another name")


def require_inputs(args: argparse.Namespace, *names: str) -> None:
    """Refuse files and folders that are not there before anything is imported that takes its time.

    Args:
        args: the command's arguments.
        names: those that may hold a path, or several; after ``=`` what a user calls them, where that differs.

    Raises:
        FileNotFoundError: one of them is not there.
    """
    for name, _, called in (name.partition("=") for name in names):
        value = getattr(args, name)
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, Path) and not path.exists():
                raise FileNotFoundError(f"{called or name}: expected a file or folder, found nothing at {path}")


def writable(out: Path, *, name: str) -> Path:
    """Make the folder and prove that files can be written, before time is spent on what goes into it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise OSError(f"{name}: cannot write into {out}: {error.strerror or error}") from error


def usable_device(wanted: str | None) -> torch.device:
    """The device of that name, tried out; ``None`` is a GPU where there is one."""
    import torch

    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {wanted} cannot be used: {str(error).splitlines()[0]}") from error
    return device
