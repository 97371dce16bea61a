"""Deprecated place of the image and mask readers, now in ``torch_bgdebias.files`` and ``torch_bgdebias.masks``."""

from __future__ import annotations

import importlib
from typing import Any

from torch_bgdebias._deprecated import warn_renamed

_HOMES = {"open_mask": "torch_bgdebias.masks.reading", "read_mask": "torch_bgdebias.masks.reading"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name, "torch_bgdebias.files")
    if name.startswith("_") or not hasattr(importlib.import_module(home), name):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_renamed(f"torch_bgdebias.data.files.{name}", f"{home}.{name}")
    return getattr(importlib.import_module(home), name)
