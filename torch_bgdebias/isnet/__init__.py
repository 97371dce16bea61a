"""Faster ISNet: training a classifier so that its LRP heatmaps keep off the background.

:class:`ISNet` explains a borrowed model, :class:`ISNetLoss` judges the heatmaps, :func:`calibrate_relevance_range`
finds the loss's range of relevance. The Lightning callback is ``torch_bgdebias.callbacks.ISNetCallback``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_bgdebias.isnet.calibration import calibrate_relevance_range, calibrate_relevance_ranges
    from torch_bgdebias.isnet.dimming import BackgroundDimming, dim_background, draw_keep
    from torch_bgdebias.isnet.figures import heatmap_figure
    from torch_bgdebias.isnet.functional import heatmap_loss
    from torch_bgdebias.isnet.loss import ISNetLoss
    from torch_bgdebias.isnet.watch import Explanation, Watch
    from torch_bgdebias.isnet.wrapper import ISNet

__all__ = [
    "BackgroundDimming",
    "Explanation",
    "ISNet",
    "ISNetLoss",
    "Watch",
    "calibrate_relevance_range",
    "calibrate_relevance_ranges",
    "dim_background",
    "draw_keep",
    "heatmap_figure",
    "heatmap_loss",
]

_HOMES = {
    "BackgroundDimming": "dimming",
    "Explanation": "watch",
    "ISNet": "wrapper",
    "ISNetLoss": "loss",
    "Watch": "watch",
    "calibrate_relevance_range": "calibration",
    "calibrate_relevance_ranges": "calibration",
    "dim_background": "dimming",
    "draw_keep": "dimming",
    "heatmap_figure": "figures",
    "heatmap_loss": "functional",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
