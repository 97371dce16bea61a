"""Deprecated place of reading backgrounds from folders, now ``torch_bgdebias.backgrounds.folder``."""

from __future__ import annotations

from typing import Any

from torch_bgdebias._deprecated import warn_renamed
from torch_bgdebias.backgrounds import folder


def __getattr__(name: str) -> Any:
    if name.startswith("_") or not hasattr(folder, name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed(f"torch_bgdebias.swap.folder.{name}", f"torch_bgdebias.backgrounds.folder.{name}")
    return getattr(folder, name)
