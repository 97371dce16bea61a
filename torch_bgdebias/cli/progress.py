"""Progress on stderr: a bar where somebody watches, silence elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["note", "progress"]

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, label: str, every: float = 2.0) -> Iterator[T]:
    """Pass ``items`` on and show how far they have come.

    On a terminal this is a tqdm bar, or a line every ``every`` seconds when tqdm is not installed. When stderr is no
    terminal (a pipe, a log file, a test) nothing is written.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield from _plain(items, total, label, every)
        return
    yield from tqdm(items, total=total, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True)


def note(text: str) -> None:
    """One line for whoever watches the terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def _plain(items: Iterable[T], total: int, label: str, every: float) -> Iterator[T]:
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= every or done == total:
            last = time.monotonic()
            print(f"{label}: {done}/{total}", file=sys.stderr)
