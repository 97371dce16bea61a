"""Metrics of background bias: torchmetrics classes, their functional halves, statistics of per-image results."""

from __future__ import annotations

from torch_bgdebias.metrics.adversarial import (
    AdversarialBackgroundAccuracy,
    AdversarialBackgrounds,
    adversarial_background_accuracy,
)
from torch_bgdebias.metrics.answers import (
    Calibration,
    balanced_accuracy,
    calibration_error,
    confusion_matrix,
    f1_score,
    sensitivity_at,
)
from torch_bgdebias.metrics.auc import AreaDifference, auc_difference, auc_interval
from torch_bgdebias.metrics.certificate import AccuracyCertificate, certified_accuracy
from torch_bgdebias.metrics.concept_iou import ConceptIoU
from torch_bgdebias.metrics.consistency import BackgroundGap, DecisionConsistency, FeatureConsistency
from torch_bgdebias.metrics.functional import background_gap, decision_consistency, feature_consistency
from torch_bgdebias.metrics.intervals import mean_difference_interval, mean_interval
from torch_bgdebias.metrics.padding import not_padding
from torch_bgdebias.metrics.pixel_ratio import PixelRatio, PixelRatioValues, pixel_ratio
from torch_bgdebias.metrics.planning import PlannedImages, gap_power, images_for_gap, images_for_interval, usual_changes
from torch_bgdebias.metrics.statistics import (
    Interval,
    PermutationTest,
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)

__all__ = [
    "AccuracyCertificate",
    "AdversarialBackgroundAccuracy",
    "AdversarialBackgrounds",
    "AreaDifference",
    "BackgroundGap",
    "Calibration",
    "ConceptIoU",
    "DecisionConsistency",
    "FeatureConsistency",
    "Interval",
    "PermutationTest",
    "PixelRatio",
    "PixelRatioValues",
    "PlannedImages",
    "adversarial_background_accuracy",
    "auc_difference",
    "auc_interval",
    "background_gap",
    "balanced_accuracy",
    "bootstrap_mean",
    "bootstrap_mean_difference",
    "calibration_error",
    "certified_accuracy",
    "confusion_matrix",
    "correct_p_values",
    "decision_consistency",
    "f1_score",
    "feature_consistency",
    "gap_power",
    "images_for_gap",
    "images_for_interval",
    "mean_difference_interval",
    "mean_interval",
    "not_padding",
    "paired_permutation_test",
    "pixel_ratio",
    "sensitivity_at",
    "usual_changes",
]
