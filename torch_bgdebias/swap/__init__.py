"""Backgrounds exchanged: where they come from, which one an image gets, and the augmentation that puts it there."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.swap.bank import BackgroundBank
    from torch_bgdebias.swap.callback import BackgroundSwapCallback
    from torch_bgdebias.swap.filter import FilterStep, screen
    from torch_bgdebias.swap.functional import batch_backgrounds, sample_swap_params, swap_background
    from torch_bgdebias.swap.generate import generate_backgrounds, write_backgrounds
    from torch_bgdebias.swap.module import BackgroundSwap
    from torch_bgdebias.swap.sources import BACKGROUND_PROMPTS, TextToImage, uniform_noise
    from torch_bgdebias.swap.stream import StreamedBackgroundBank

#: public name -> file that defines it; looked up lazily because the module imports kornia and the callback Lightning
_HOMES = {
    "BACKGROUND_PROMPTS": "sources",
    "BackgroundBank": "bank",
    "BackgroundSwap": "module",
    "BackgroundSwapCallback": "callback",
    "FilterStep": "filter",
    "StreamedBackgroundBank": "stream",
    "TextToImage": "sources",
    "batch_backgrounds": "functional",
    "generate_backgrounds": "generate",
    "sample_swap_params": "functional",
    "screen": "filter",
    "swap_background": "functional",
    "uniform_noise": "sources",
    "write_backgrounds": "generate",
}

__all__ = [
    "BACKGROUND_PROMPTS",
    "BackgroundBank",
    "BackgroundSwap",
    "BackgroundSwapCallback",
    "FilterStep",
    "StreamedBackgroundBank",
    "TextToImage",
    "batch_backgrounds",
    "generate_backgrounds",
    "sample_swap_params",
    "screen",
    "swap_background",
    "uniform_noise",
    "write_backgrounds",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
