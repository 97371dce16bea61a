"""One number an image for each figure that is a mean over images."""

from __future__ import annotations

import numpy as np

from torch_bgdebias.metrics.statistics import Floats
from torch_bgdebias.probe.results.images import ImageResults

__all__ = ["columns_of", "paired_columns"]


def paired_columns(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure that is a mean over images, the BG-Gap first; NaN where it has none."""
    columns = columns_of(images)
    if "accuracy/mixed_same" in columns and "accuracy/mixed_rand" in columns:
        columns = {"bg_gap": columns["accuracy/mixed_same"] - columns["accuracy/mixed_rand"], **columns}
    return columns


def columns_of(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure, NaN where the image has none."""
    columns: dict[str, Floats] = {}
    for name in images.variants:
        valid = images.valid(name)
        columns[f"accuracy/{name}"] = np.where(valid, images.correct(name), np.nan)
        if name in images.background_label and "original" in images.prediction:
            same_answer = images.prediction[name] == images.prediction["original"]
            columns[f"decision_consistency/{name}"] = np.where(valid, same_answer, np.nan)
    for name, cosine in images.cosine.items():
        columns[f"feature_consistency/{name}"] = cosine.astype(np.float64)
    for name, score in images.scores.items():
        columns[name] = score.astype(np.float64)
    return columns
