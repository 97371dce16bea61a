"""All Lightning callbacks under one name; each lives in its own room and is imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.clad.callback import CLADCallback as CLADCallback
    from torch_bgdebias.finetuning.callback import FreezeLowerStages as FreezeLowerStages
    from torch_bgdebias.isnet.callback import ISNetCallback as ISNetCallback
    from torch_bgdebias.probe.callback import BackgroundBiasProbe as BackgroundBiasProbe
    from torch_bgdebias.probe.callback_concepts import ConceptProbeCallback as ConceptProbeCallback
    from torch_bgdebias.swap.callback import BackgroundSwapCallback as BackgroundSwapCallback
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.clad.callback": ["CLADCallback"],
            "torch_bgdebias.finetuning.callback": ["FreezeLowerStages"],
            "torch_bgdebias.isnet.callback": ["ISNetCallback"],
            "torch_bgdebias.probe.callback": ["BackgroundBiasProbe"],
            "torch_bgdebias.probe.callback_concepts": ["ConceptProbeCallback"],
            "torch_bgdebias.swap.callback": ["BackgroundSwapCallback"],
        },
    )
