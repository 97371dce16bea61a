"""The Lightning callbacks under one name; each lives in its own room and is imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BackgroundSwapCallback": "torch_bgdebias.swap.callback",
    "CLADCallback": "torch_bgdebias.clad.callback",
    "ISNetCallback": "torch_bgdebias.isnet.callback",
    "BackgroundBiasProbe": "torch_bgdebias.probe.callback",
    "ConceptProbeCallback": "torch_bgdebias.probe.callback_concepts",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
