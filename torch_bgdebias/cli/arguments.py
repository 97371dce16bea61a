"""Argument types, and checks of arguments before a command starts."""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from torch_bgdebias.cli.suggestions import did_you_mean

if TYPE_CHECKING:
    import torch

__all__ = [
    "choices",
    "foreground_labels",
    "labels",
    "real",
    "refuse_half_units",
    "refuse_results",
    "require_inputs",
    "usable_device",
    "whole",
    "writable",
    "writable_file",
]


def whole(least: int) -> Callable[[str], int]:
    """A whole number of at least ``least``."""

    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text}")
        return value

    return number


def real(least: float, most: float = math.inf) -> Callable[[str], float]:
    """A finite number of at least ``least`` and, where given, at most ``most``."""
    expected = f"of at least {least:g}" if most == math.inf else f"in [{least:g}, {most:g}]"

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or value == math.inf:
            raise argparse.ArgumentTypeError(f"expected a number {expected}, got {text}{_as_share(text, most)}")
        return value

    return number


def _as_share(text: str, most: float) -> str:
    """A hint on how to write per cent where a share is expected."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        return ""
    return f"; {percent:g} % is {percent / 100:g}" if most <= 1 < percent <= 100 or text.endswith("%") else ""


def choices(options: Collection[str]) -> Callable[[str], list[str]]:
    """Names separated by commas, each one of ``options``; an empty text is no name."""

    def names(text: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if unknown := [name for name in names if name not in options]:
            hint = did_you_mean(unknown[0], options)
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(options)}, got {', '.join(unknown)}{hint}")
        return names

    return names


def labels(text: str) -> list[str]:
    """Values, label numbers or colours separated by commas; an empty text is none."""
    return [label.strip() for label in text.split(",") if label.strip()]


def foreground_labels(text: str) -> list[str] | dict[str, list[str]]:
    """Labels as `labels` has them, or those of each class: ``cat=8,9,dog=12``."""
    if "=" not in text:
        return labels(text)
    by_class: dict[str, list[str]] = {}
    for part in labels(text):
        name, equals, label = part.rpartition("=")
        if not equals and not by_class:
            raise argparse.ArgumentTypeError(f"expected A,B or CLASS=A,B,CLASS=C, got {text!r}")
        by_class.setdefault(name.strip() if equals else next(reversed(by_class)), []).append(label.strip())
    return by_class


def refuse_results(out: Path, files: Collection[str], *, overwrite: bool) -> None:
    """Refuse a folder that holds results of a run that came to its end; one that was stopped is written anew.

    Args:
        out: the folder, or the file itself where ``files`` is empty.
        files: names of the results in it.
        overwrite: whether the user wants them replaced.

    Raises:
        FileExistsError: some of them exist.
    """
    existing = [name for name in files if (out / name).exists()] if files else [out.name] if out.is_file() else []
    if not existing or overwrite:
        return
    from torch_bgdebias.writing import is_unfinished

    if not is_unfinished(out):
        where = f"{out} holds {', '.join(existing)}" if files else f"{out} exists"
        raise FileExistsError(f"--out: {where} already; pass --overwrite or another name")


def require_inputs(args: argparse.Namespace, *names: str) -> None:
    """Reject missing files and folders before slow imports.

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


def refuse_half_units(args: argparse.Namespace) -> None:
    """Refuse ``--mean`` without ``--std`` and the other way round, before anything is loaded."""
    if (args.mean is None) != (args.std is None):
        raise ValueError(f"--mean and --std: expected both or none, got only --{'mean' if args.std is None else 'std'}")


def writable(out: Path, *, name: str) -> Path:
    """Make the folder and prove that files can be written, before time is spent on what goes into it."""
    if out.is_file():
        raise NotADirectoryError(f"{name}: expected a folder, got the file {out}")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise OSError(f"{name}: cannot write into {out}: {error.strerror or error}") from error


def writable_file(out: Path, *, name: str) -> None:
    """Prove that a file can be written, before time is spent on what goes into it.

    Args:
        out: the file to write; one that is there stays as it is.
        name: the option that named it.

    Raises:
        OSError: it is a folder, or its folder is missing or cannot be written into.
    """
    if out.is_dir():
        raise IsADirectoryError(f"{name}: expected a file to write, got {out}: it is a folder")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"{name}: expected a file to write, got {out}: there is no folder {out.parent}")
    if out.is_file() or not out.exists():  # pipes and devices are written straight
        writable(out.parent, name=name)


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
