"""A new last layer for an existing network, fitted on images with original and with swapped backgrounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_bgdebias._lazy import lazy

if TYPE_CHECKING:
    from torch_bgdebias.heads.calibration import HeadFigures as HeadFigures, ViewFigures as ViewFigures
    from torch_bgdebias.heads.debiased import DebiasedHead as DebiasedHead, fit_debiased_head as fit_debiased_head
    from torch_bgdebias.heads.logistic import LinearHead as LinearHead, PenaltyScore as PenaltyScore
    from torch_bgdebias.heads.settings import HeadSettings as HeadSettings
else:
    __all__, __getattr__, __dir__ = lazy(
        __name__,
        {
            "torch_bgdebias.heads.calibration": ["HeadFigures", "ViewFigures"],
            "torch_bgdebias.heads.debiased": ["DebiasedHead", "fit_debiased_head"],
            "torch_bgdebias.heads.logistic": ["LinearHead", "PenaltyScore"],
            "torch_bgdebias.heads.settings": ["HeadSettings"],
        },
    )
