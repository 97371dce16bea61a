"""One number an image for each figure that is a mean over images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.probe.results.images import ImageResults

__all__ = ["class_columns", "class_rows", "classes_of", "columns_of", "paired_columns"]


def paired_columns(images: ImageResults, label: int | None = None) -> dict[str, Floats]:
    """One number per image for each figure that is a mean over images, the BG-Gap first; NaN where it has none.

    Args:
        images: what a model said.
        label: of one class or label alone; of all when ``None``.
    """
    columns = columns_of(images) if label is None else class_columns(images, label)
    if "accuracy/mixed_same" in columns and "accuracy/mixed_rand" in columns:
        columns = {"bg_gap": columns["accuracy/mixed_same"] - columns["accuracy/mixed_rand"], **columns}
    return columns


def columns_of(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure, NaN where the image has none.

    Of label sets the accuracy is the share of the labels that are right, so that the BG-Gap is the mean of the labels'
    gaps; ``exact_match/<variant>`` is whether all are.
    """
    columns: dict[str, Floats] = {}
    for name in images.variants:
        valid = images.valid(name)
        if images.targets is not None:
            columns[f"accuracy/{name}"] = images.labels_right(name).mean(1)
            columns[f"exact_match/{name}"] = np.where(valid, images.correct(name), np.nan)
        elif images.labelled:
            columns[f"accuracy/{name}"] = np.where(valid, images.correct(name), np.nan)
        if name in images.background_label and "original" in images.prediction:
            columns[f"decision_consistency/{name}"] = _decisions_kept(images, name).mean(1)
    return columns | _without_answers(images)


def class_columns(images: ImageResults, label: int) -> dict[str, Floats]:
    """The same within one class, (n,) of its images; of one label of label sets (N,) of all, by its answers alone."""
    if images.targets is None:
        rows = class_rows(images, label)
        return {name: column[rows] for name, column in columns_of(images).items()}
    columns: dict[str, Floats] = {}
    for name in images.variants:
        columns[f"accuracy/{name}"] = images.labels_right(name)[:, label]
        if name in images.background_label:
            columns[f"decision_consistency/{name}"] = _decisions_kept(images, name)[:, label]
    return columns


def class_rows(images: ImageResults, label: int) -> NDArray[np.bool_]:
    """(N,) the images that a class's figures are over: its own; all for a label of label sets."""
    if images.targets is not None:
        return np.ones(len(images), bool)
    return np.asarray(images.label == label)


def classes_of(images: ImageResults) -> list[int]:
    """The classes that occur; all labels of label sets; none where the images have no labels."""
    if images.targets is not None:
        return list(range(images.targets.shape[1]))
    return [int(label) for label in np.unique(images.label) if label >= 0]


def _decisions_kept(images: ImageResults, variant: str) -> Floats:
    """(N, 1) whether the answer is that to the original, (N, L) of label sets; NaN without the variant."""
    if images.targets is None:
        same = (images.prediction[variant] == images.prediction["original"])[:, None]
    else:
        same = images.label_answers(variant) == images.label_answers("original")
    return np.where(images.valid(variant)[:, None], same.astype(np.float64), np.nan)


def _without_answers(images: ImageResults) -> dict[str, Floats]:
    """Figures that no answer is needed for."""
    columns = {f"feature_consistency/{name}": cosine.astype(np.float64) for name, cosine in images.cosine.items()}
    return columns | {name: score.astype(np.float64) for name, score in images.scores.items()}
