"""What is object and what is background: reading masks, making them, judging them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.masks.grabcut import grabcut_masks
    from torch_bgdebias.masks.reading import open_mask, read_mask

#: public name -> file that defines it
_HOMES = {"grabcut_masks": "grabcut", "open_mask": "reading", "read_mask": "reading"}

__all__ = ["grabcut_masks", "open_mask", "read_mask"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
