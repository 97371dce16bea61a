"""Metrics of background bias: torchmetrics classes, their functional halves, statistics of per-image results."""

from __future__ import annotations

from torch_bgdebias.metrics.consistency import BackgroundGap, DecisionConsistency, FeatureConsistency
from torch_bgdebias.metrics.functional import background_gap, decision_consistency, feature_consistency
from torch_bgdebias.metrics.statistics import (
    Interval,
    PermutationTest,
    bootstrap_mean,
    bootstrap_mean_difference,
    correct_p_values,
    paired_permutation_test,
)

__all__ = [
    "BackgroundGap",
    "DecisionConsistency",
    "FeatureConsistency",
    "Interval",
    "PermutationTest",
    "background_gap",
    "bootstrap_mean",
    "bootstrap_mean_difference",
    "correct_p_values",
    "decision_consistency",
    "feature_consistency",
    "paired_permutation_test",
]
