"""Measure and remove background bias in image classifiers.

Names are imported when they are first used: ``import torch_bgdebias`` by itself imports neither torch nor any partner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy
from torch_bgdebias._version import __version__ as __version__

if TYPE_CHECKING:
    from torch_bgdebias import (
        attribution as attribution,
        audit as audit,
        backgrounds as backgrounds,
        callbacks as callbacks,
        clad as clad,
        concepts as concepts,
        data as data,
        heads as heads,
        isnet as isnet,
        lrp as lrp,
        masks as masks,
        metrics as metrics,
        ops as ops,
        probe as probe,
        swap as swap,
    )
    from torch_bgdebias.backgrounds import (
        BackgroundBank as BackgroundBank,
        generate_backgrounds as generate_backgrounds,
    )
    from torch_bgdebias.batch import BatchSpec as BatchSpec
    from torch_bgdebias.clad import CLADLoss as CLADLoss, NegativeQueue as NegativeQueue, clad_loss as clad_loss
    from torch_bgdebias.data import MaskedImageFolder as MaskedImageFolder, make_variant as make_variant
    from torch_bgdebias.heads import fit_debiased_head as fit_debiased_head
    from torch_bgdebias.isnet import (
        BackgroundDimming as BackgroundDimming,
        ISNet as ISNet,
        ISNetLoss as ISNetLoss,
        calibrate_relevance_range as calibrate_relevance_range,
    )
    from torch_bgdebias.masks import grabcut_masks as grabcut_masks
    from torch_bgdebias.metrics import (
        AdversarialBackgroundAccuracy as AdversarialBackgroundAccuracy,
        BackgroundGap as BackgroundGap,
        ConceptIoU as ConceptIoU,
        DecisionConsistency as DecisionConsistency,
        FeatureConsistency as FeatureConsistency,
        PixelRatio as PixelRatio,
        pixel_ratio as pixel_ratio,
    )
    from torch_bgdebias.ops import extension_status as extension_status, voronoi_composite as voronoi_composite
    from torch_bgdebias.probe import (
        BackgroundBiasReport as BackgroundBiasReport,
        compare_models as compare_models,
        evaluate_background_bias as evaluate_background_bias,
    )
    from torch_bgdebias.swap import BackgroundSwap as BackgroundSwap
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias": [
                "attribution",
                "audit",
                "backgrounds",
                "callbacks",
                "clad",
                "concepts",
                "data",
                "heads",
                "isnet",
                "lrp",
                "masks",
                "metrics",
                "ops",
                "probe",
                "swap",
            ],
            "torch_bgdebias.backgrounds": ["BackgroundBank", "generate_backgrounds"],
            "torch_bgdebias.batch": ["BatchSpec"],
            "torch_bgdebias.clad": ["CLADLoss", "NegativeQueue", "clad_loss"],
            "torch_bgdebias.data": ["MaskedImageFolder", "make_variant"],
            "torch_bgdebias.heads": ["fit_debiased_head"],
            "torch_bgdebias.isnet": ["BackgroundDimming", "ISNet", "ISNetLoss", "calibrate_relevance_range"],
            "torch_bgdebias.masks": ["grabcut_masks"],
            "torch_bgdebias.metrics": [
                "AdversarialBackgroundAccuracy",
                "BackgroundGap",
                "ConceptIoU",
                "DecisionConsistency",
                "FeatureConsistency",
                "PixelRatio",
                "pixel_ratio",
            ],
            "torch_bgdebias.ops": ["extension_status", "voronoi_composite"],
            "torch_bgdebias.probe": ["BackgroundBiasReport", "compare_models", "evaluate_background_bias"],
            "torch_bgdebias.swap": ["BackgroundSwap"],
        },
    )
    __all__ += ["__version__"]
