"""Layer-wise relevance propagation that can be trained through.

:class:`FlexComposite`, :func:`trainable` and :func:`relevance` need zennit, which is imported when one of them is first
used. The engine beneath LRP-Flex (:class:`~torch_bgdebias.lrp.engine.FlexPass`) needs torch alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.lrp.composites import FlexComposite
    from torch_bgdebias.lrp.engine import FlexPass
    from torch_bgdebias.lrp.propagation import relevance
    from torch_bgdebias.lrp.rules import trainable

__all__ = ["FlexComposite", "FlexPass", "relevance", "trainable"]

_HOMES = {"FlexComposite": "composites", "FlexPass": "engine", "relevance": "propagation", "trainable": "rules"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
