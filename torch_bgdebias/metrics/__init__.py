"""Metrics of background bias: torchmetrics classes, their functional halves, statistics of per-image results."""

from __future__ import annotations

from torch_bgdebias.metrics.adversarial import (
    AdversarialBackgroundAccuracy,
    AdversarialBackgrounds,
    adversarial_background_accuracy,
)
from torch_bgdebias.metrics.concept_iou import ConceptIoU
from torch_bgdebias.metrics.consistency import BackgroundGap, DecisionConsistency, FeatureConsistency
from torch_bgdebias.metrics.functional import background_gap, decision_consistency, feature_consistency
from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval
from torch_bgdebias.metrics.pixel_ratio import PixelRatio, PixelRatioValues, pixel_ratio
from torch_bgdebias.metrics.statistics import (
    Interval,
    PermutationTest,
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)

__all__ = [
    "AdversarialBackgroundAccuracy",
    "AdversarialBackgrounds",
    "BackgroundGap",
    "ConceptIoU",
    "DecisionConsistency",
    "FeatureConsistency",
    "Interval",
    "PermutationTest",
    "PixelRatio",
    "PixelRatioValues",
    "adversarial_background_accuracy",
    "background_gap",
    "bootstrap_mean",
    "bootstrap_mean_difference",
    "correct_p_values",
    "decision_consistency",
    "feature_consistency",
    "mean_difference_interval",
    "mean_interval",
    "paired_permutation_test",
    "pixel_ratio",
]
