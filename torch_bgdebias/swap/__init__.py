"""Backgrounds exchanged: which one an image gets, and the augmentation that puts it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.swap.callback import BackgroundSwapCallback as BackgroundSwapCallback
    from torch_bgdebias.swap.functional import (
        batch_backgrounds as batch_backgrounds,
        placed as placed,
        sample_swap_params as sample_swap_params,
        swap_background as swap_background,
    )
    from torch_bgdebias.swap.module import BackgroundSwap as BackgroundSwap
    from torch_bgdebias.swap.placement import (
        Placement as Placement,
        place_object as place_object,
        sample_placement as sample_placement,
    )
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.swap.callback": ["BackgroundSwapCallback"],
            "torch_bgdebias.swap.functional": ["batch_backgrounds", "placed", "sample_swap_params", "swap_background"],
            "torch_bgdebias.swap.module": ["BackgroundSwap"],
            "torch_bgdebias.swap.placement": ["Placement", "place_object", "sample_placement"],
        },
        moved={
            "torch_bgdebias.backgrounds": [
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
        },
    )
