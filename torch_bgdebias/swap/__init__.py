"""Background swapping: which background an image gets, and the augmentation that pastes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.swap.callback import BackgroundSwapCallback as BackgroundSwapCallback
    from torch_bgdebias.swap.functional import (
        batch_backgrounds as batch_backgrounds,
        placed as placed,
        swap_background as swap_background,
    )
    from torch_bgdebias.swap.module import BackgroundSwap as BackgroundSwap
    from torch_bgdebias.swap.placement import (
        Placement as Placement,
        place_object as place_object,
        sample_placement as sample_placement,
    )
    from torch_bgdebias.swap.sampling import sample_swap_params as sample_swap_params
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.swap.callback": ["BackgroundSwapCallback"],
            "torch_bgdebias.swap.functional": ["batch_backgrounds", "placed", "swap_background"],
            "torch_bgdebias.swap.module": ["BackgroundSwap"],
            "torch_bgdebias.swap.placement": ["Placement", "place_object", "sample_placement"],
            "torch_bgdebias.swap.sampling": ["sample_swap_params"],
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
