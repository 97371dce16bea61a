"""Fine-tuning on few images without losing what a pretrained network knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.finetuning.callback import FreezeLowerStages as FreezeLowerStages
    from torch_bgdebias.finetuning.freezing import (
        LowerStages as LowerStages,
        freeze_lower_stages as freeze_lower_stages,
    )
    from torch_bgdebias.stages import LastStage as LastStage, last_stage as last_stage
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.finetuning.callback": ["FreezeLowerStages"],
            "torch_bgdebias.finetuning.freezing": ["LowerStages", "freeze_lower_stages"],
            "torch_bgdebias.stages": ["LastStage", "last_stage"],
        },
    )
