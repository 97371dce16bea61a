"""Backgrounds exchanged: where they come from, which one an image gets, and the augmentation that puts it there."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.backgrounds.bank import BackgroundBank
    from torch_bgdebias.backgrounds.generation.generate import generate_backgrounds, write_backgrounds
    from torch_bgdebias.backgrounds.generation.sources import BACKGROUND_PROMPTS, TextToImage, uniform_noise
    from torch_bgdebias.backgrounds.screening.filter import FilterStep, screen
    from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank
    from torch_bgdebias.swap.callback import BackgroundSwapCallback
    from torch_bgdebias.swap.functional import batch_backgrounds, sample_swap_params, swap_background
    from torch_bgdebias.swap.module import BackgroundSwap

#: public name -> file that defines it; looked up lazily because the module imports kornia and the callback Lightning
_HOMES = {
    "BACKGROUND_PROMPTS": "torch_bgdebias.backgrounds",
    "BackgroundBank": "torch_bgdebias.backgrounds",
    "BackgroundSwap": "module",
    "BackgroundSwapCallback": "callback",
    "FilterStep": "torch_bgdebias.backgrounds",
    "StreamedBackgroundBank": "torch_bgdebias.backgrounds",
    "TextToImage": "torch_bgdebias.backgrounds",
    "batch_backgrounds": "functional",
    "generate_backgrounds": "torch_bgdebias.backgrounds",
    "sample_swap_params": "functional",
    "screen": "torch_bgdebias.backgrounds",
    "swap_background": "functional",
    "uniform_noise": "torch_bgdebias.backgrounds",
    "write_backgrounds": "torch_bgdebias.backgrounds",
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
        home = _HOMES[name]
        return getattr(importlib.import_module(home if "." in home else f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
