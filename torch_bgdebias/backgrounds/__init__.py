"""Sources of backgrounds: banks in memory or streamed from files, their screening and generation."""

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
    from torch_bgdebias.backgrounds.items import background_bank as background_bank
    from torch_bgdebias.backgrounds.objects import (
        IMAGENET_OBJECTS as IMAGENET_OBJECTS,
        forbidden_objects as forbidden_objects,
    )
    from torch_bgdebias.backgrounds.scenes import (
        PLACES_GROUPS as PLACES_GROUPS,
        SCENES_WITH as SCENES_WITH,
        forbid_scenes as forbid_scenes,
        scene_groups as scene_groups,
    )
    from torch_bgdebias.backgrounds.screening.filter import FilterStep as FilterStep, screen as screen
    from torch_bgdebias.backgrounds.stream import StreamedBackgroundBank as StreamedBackgroundBank
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.backgrounds.bank": ["BackgroundBank"],
            "torch_bgdebias.backgrounds.generation.generate": ["generate_backgrounds", "write_backgrounds"],
            "torch_bgdebias.backgrounds.generation.sources": ["BACKGROUND_PROMPTS", "TextToImage", "uniform_noise"],
            "torch_bgdebias.backgrounds.items": ["background_bank"],
            "torch_bgdebias.backgrounds.objects": ["IMAGENET_OBJECTS", "forbidden_objects"],
            "torch_bgdebias.backgrounds.scenes": ["PLACES_GROUPS", "SCENES_WITH", "forbid_scenes", "scene_groups"],
            "torch_bgdebias.backgrounds.screening.filter": ["FilterStep", "screen"],
            "torch_bgdebias.backgrounds.stream": ["StreamedBackgroundBank"],
        },
    )
