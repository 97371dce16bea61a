"""Where backgrounds come from: banks in memory or streamed from files, their screening and generation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.backgrounds.bank import BackgroundBank
    from torch_bgdebias.backgrounds.generation.generate import generate_backgrounds, write_backgrounds
    from torch_bgdebias.backgrounds.generation.sources import BACKGROUND_PROMPTS, TextToImage, uniform_noise
    from torch_bgdebias.backgrounds.screening.filter import FilterStep, screen
    from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank

#: public name -> file that defines it
_HOMES = {
    "BACKGROUND_PROMPTS": "generation.sources",
    "BackgroundBank": "bank",
    "FilterStep": "screening.filter",
    "StreamedBackgroundBank": "stream",
    "TextToImage": "generation.sources",
    "generate_backgrounds": "generation.generate",
    "screen": "screening.filter",
    "uniform_noise": "generation.sources",
    "write_backgrounds": "generation.generate",
}

__all__ = [
    "BACKGROUND_PROMPTS",
    "BackgroundBank",
    "FilterStep",
    "StreamedBackgroundBank",
    "TextToImage",
    "generate_backgrounds",
    "screen",
    "uniform_noise",
    "write_backgrounds",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
