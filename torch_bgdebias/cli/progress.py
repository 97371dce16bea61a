"""Progress on stderr: a bar on a terminal, an occasional line elsewhere, each with the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["note", "progress", "seconds_words"]

T = TypeVar("T")


def progress(items: Iterable[T], *, total: int, label: str, every: float = 10.0) -> Iterator[T]:
    """Pass ``items`` on and show how far they have come, and how long the rest will take.

    On a terminal this is a tqdm bar. Where there is no tqdm, or stderr is a pipe or a file, it is a line every
    ``every`` seconds: nothing for what is done sooner.
    """
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            every = min(every, 2.0)
        else:
            yield from tqdm(items, total=total, desc=label, file=sys.stderr, leave=False, dynamic_ncols=True)
            return
    yield from _lines(items, total, label, every)


def note(text: str) -> None:
    """One line on a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def seconds_words(seconds: float) -> str:
    """A length of time in words: ``8 s``, ``3 min 20 s``, ``2 h 5 min``."""
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes, seconds_left = divmod(rounded, 60)
    return f"{minutes} min {seconds_left} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _lines(items: Iterable[T], total: int, label: str, every: float) -> Iterator[T]:
    started = last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= every:
            last = now
            time_left = f", {seconds_words((now - started) / count * (total - count))} left" if count < total else ""
            print(f"{label}: {count}/{total}{time_left}", file=sys.stderr, flush=True)
