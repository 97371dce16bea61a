"""Faster ISNet: trains a classifier whose LRP heatmaps stay off the background.

`ISNet` explains a borrowed model, `ISNetLoss` judges the heatmaps, `calibrate_relevance_range`
finds the loss's range of relevance. The Lightning callback is ``torch_bgdebias.callbacks.ISNetCallback``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.isnet.balance import GradientBalance as GradientBalance
    from torch_bgdebias.isnet.calibration import (
        calibrate_relevance_range as calibrate_relevance_range,
        calibrate_relevance_ranges as calibrate_relevance_ranges,
    )
    from torch_bgdebias.isnet.dimming import (
        BackgroundDimming as BackgroundDimming,
        dim_background as dim_background,
        draw_keep as draw_keep,
    )
    from torch_bgdebias.isnet.figures import heatmap_figure as heatmap_figure
    from torch_bgdebias.isnet.functional import HeatmapOptions as HeatmapOptions, heatmap_loss as heatmap_loss
    from torch_bgdebias.isnet.loss import ISNetLoss as ISNetLoss, ISNetLossOptions as ISNetLossOptions
    from torch_bgdebias.isnet.record import Explanation as Explanation
    from torch_bgdebias.isnet.rules import Rules as Rules
    from torch_bgdebias.isnet.settings import ISNetSettings as ISNetSettings
    from torch_bgdebias.isnet.watch import Watch as Watch
    from torch_bgdebias.isnet.wrapper import ISNet as ISNet
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.isnet.balance": ["GradientBalance"],
            "torch_bgdebias.isnet.calibration": ["calibrate_relevance_range", "calibrate_relevance_ranges"],
            "torch_bgdebias.isnet.dimming": ["BackgroundDimming", "dim_background", "draw_keep"],
            "torch_bgdebias.isnet.figures": ["heatmap_figure"],
            "torch_bgdebias.isnet.functional": ["HeatmapOptions", "heatmap_loss"],
            "torch_bgdebias.isnet.loss": ["ISNetLoss", "ISNetLossOptions"],
            "torch_bgdebias.isnet.record": ["Explanation"],
            "torch_bgdebias.isnet.rules": ["Rules"],
            "torch_bgdebias.isnet.settings": ["ISNetSettings"],
            "torch_bgdebias.isnet.watch": ["Watch"],
            "torch_bgdebias.isnet.wrapper": ["ISNet"],
        },
    )
