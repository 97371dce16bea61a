"""Measure and remove background bias in image classifiers.

Public names are resolved when they are first used: importing this package imports torch and nothing else.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: public name -> module that defines it
_HOMES = {
    "BatchSpec": "batch",
    # ops
    "extension_status": "ops",
    "voronoi_composite": "ops",
    # swap
    "BackgroundBank": "backgrounds",
    "BackgroundSwap": "swap",
    "generate_backgrounds": "backgrounds",
    # clad
    "CLADLoss": "clad",
    "NegativeQueue": "clad",
    "clad_loss": "clad",
    # isnet
    "ISNet": "isnet",
    "ISNetLoss": "isnet",
    "BackgroundDimming": "isnet",
    "calibrate_relevance_range": "isnet",
    # metrics
    "AdversarialBackgroundAccuracy": "metrics",
    "BackgroundGap": "metrics",
    "ConceptIoU": "metrics",
    "DecisionConsistency": "metrics",
    "FeatureConsistency": "metrics",
    "PixelRatio": "metrics",
    "pixel_ratio": "metrics",
    # data
    "grabcut_masks": "masks",
    "make_variant": "data",
}
_ROOMS = (
    "attribution",
    "backgrounds",
    "callbacks",
    "clad",
    "concepts",
    "data",
    "isnet",
    "lrp",
    "masks",
    "metrics",
    "ops",
    "probe",
    "swap",
)

__all__ = ["__version__", *_HOMES, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value  # the next look-up does not come here
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
