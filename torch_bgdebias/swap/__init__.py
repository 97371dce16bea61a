"""Backgrounds exchanged: where they come from, which one an image gets, and the augmentation that puts it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.backgrounds.bank import BackgroundBank as BackgroundBank
    from torch_bgdebias.backgrounds.generation.generate import (
        generate_backgrounds as generate_backgrounds,
        write_backgrounds as write_backgrounds,
    )
    from torch_bgdebias.backgrounds.generation.sources import (
        BACKGROUND_PROMPTS as BACKGROUND_PROMPTS,
        TextToImage as TextToImage,
        uniform_noise as uniform_noise,
    )
    from torch_bgdebias.backgrounds.screening.filter import FilterStep as FilterStep, screen as screen
    from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank as StreamedBackgroundBank
    from torch_bgdebias.swap.callback import BackgroundSwapCallback as BackgroundSwapCallback
    from torch_bgdebias.swap.functional import (
        batch_backgrounds as batch_backgrounds,
        sample_swap_params as sample_swap_params,
        swap_background as swap_background,
    )
    from torch_bgdebias.swap.module import BackgroundSwap as BackgroundSwap
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.backgrounds.bank": ["BackgroundBank"],
            "torch_bgdebias.backgrounds.generation.generate": ["generate_backgrounds", "write_backgrounds"],
            "torch_bgdebias.backgrounds.generation.sources": ["BACKGROUND_PROMPTS", "TextToImage", "uniform_noise"],
            "torch_bgdebias.backgrounds.screening.filter": ["FilterStep", "screen"],
            "torch_bgdebias.backgrounds.stream": ["StreamedBackgroundBank"],
            "torch_bgdebias.swap.callback": ["BackgroundSwapCallback"],
            "torch_bgdebias.swap.functional": ["batch_backgrounds", "sample_swap_params", "swap_background"],
            "torch_bgdebias.swap.module": ["BackgroundSwap"],
        },
    )
