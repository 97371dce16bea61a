"""Checks YAML settings files before they are read: the size that aliases expand to is bounded."""

from __future__ import annotations

import importlib
from pathlib import Path

__all__ = ["require_bounded"]

_LARGEST_FILE = 2**24  # bytes
_MOST = 100_000  # values, aliases unfolded
_DEEPEST = 64


def require_bounded(path: Path, *, name: str = "--config") -> None:
    """Refuse settings that take much memory or time: by size, by depth, or by aliases of aliases.

    What is no YAML passes: the reader of the settings says what is wrong with it.

    Args:
        path: the file.
        name: the option that named it, for errors.

    Raises:
        OSError: the file cannot be read.
        ValueError: more than 16 MiB, 100,000 values with aliases unfolded, or 64 levels, or an alias inside of what it
            stands for.
    """
    yaml = importlib.import_module("yaml")  # Lightning brings it
    if (size := path.stat().st_size) > _LARGEST_FILE:
        raise ValueError(f"{name}: {path}: expected at most {_LARGEST_FILE} bytes of settings, got {size}")
    content = path.read_bytes()
    counts: dict[str, int | None] = {}  # values under an anchor; None while it is open
    levels: list[tuple[str | None, int]] = []  # anchor of each open list or mapping, and values before it
    total = 0
    try:
        for event in yaml.parse(content, Loader=yaml.SafeLoader):
            anchor = getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                if anchor in counts and counts[anchor] is None:
                    raise _refusal(name, path, f"no alias inside of what it stands for, got *{anchor}")
                total += counts.get(str(anchor)) or 0
            elif isinstance(event, yaml.CollectionStartEvent):
                levels.append((anchor, total))
                total += 1
                if anchor is not None:
                    counts[anchor] = None
            elif isinstance(event, yaml.CollectionEndEvent):
                closed, before = levels.pop()
                if closed is not None:
                    counts[closed] = total - before
            elif isinstance(event, yaml.ScalarEvent):
                total += 1
                if anchor is not None:
                    counts[anchor] = 1
            if len(levels) > _DEEPEST:
                raise _refusal(name, path, f"at most {_DEEPEST} nested levels, got more")
            if total > _MOST:
                raise _refusal(name, path, f"at most {_MOST} values with their aliases unfolded, got more")
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):  # the settings' own reader says what is wrong
        return


def _refusal(name: str, path: Path, expected: str) -> ValueError:
    return ValueError(f"{name}: {path}: expected {expected}")
