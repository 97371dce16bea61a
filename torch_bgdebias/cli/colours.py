"""Colour on a terminal only: none in pipes and files, none where ``NO_COLOR`` is set (no-color.org)."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["coloured", "has_colour", "tell"]

_CODES = {"error": "1;31", "note": "33", "strong": "1", "faint": "2"}


def has_colour(stream: TextIO) -> bool:
    """Whether a stream shows colours: a terminal that knows them; ``FORCE_COLOR`` says so of anything else."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str, kind: str, stream: TextIO) -> str:
    """A text styled as ``error``, ``note``, ``strong`` or ``faint``, if the stream supports it."""
    return f"\033[{_CODES[kind]}m{text}\033[0m" if has_colour(stream) else text


def tell(text: str, stream: TextIO) -> None:
    """Print paragraphs with the first line of each strong, and what may be chance faint."""
    paragraphs = text.split("\n\n")
    if has_colour(stream):
        lines = [paragraph.split("\n") for paragraph in paragraphs]
        paragraphs = ["\n".join([coloured(lead, "strong", stream), *details]) for lead, *details in lines]
        chance = "may be chance"
        paragraphs = [p.replace(chance, coloured(chance, "faint", stream)) for p in paragraphs]
    print("\n\n".join(paragraphs), file=stream)
