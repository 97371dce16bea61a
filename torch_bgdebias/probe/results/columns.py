"""One number per image for each figure that is a mean over images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torch_bgdebias.metrics.columns import Floats
from torch_bgdebias.probe.results.images import ImageResults

__all__ = ["ClassColumns", "columns_by_class", "columns_of", "paired_columns", "with_gap"]


def paired_columns(images: ImageResults) -> dict[str, Floats]:
    """One number per image for each figure that is a mean over images, the BG-Gap first; NaN where it has none."""
    return with_gap(columns_of(images))


def with_gap(columns: dict[str, Floats]) -> dict[str, Floats]:
    """The same with the BG-Gap of each image first, where both of its variants were measured."""
    if "accuracy/mixed_same" in columns and "accuracy/mixed_rand" in columns:
        return {"bg_gap": columns["accuracy/mixed_same"] - columns["accuracy/mixed_rand"], **columns}
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
    return columns | _columns_without_answers(images)


class ClassColumns(NamedTuple):
    """The figures of one class.

    Attributes:
        label: the class, or a label of label sets.
        n: its images; of a label in label sets those that have it.
        rows: (n,) the images that its figures are over: its own, in order; all for a label of label sets.
        columns: one number for each of these and each figure.
    """

    label: int
    n: int
    rows: NDArray[np.int64]
    columns: dict[str, Floats]


def columns_by_class(images: ImageResults) -> Iterator[ClassColumns]:
    """The classes that occur, or all labels; none where the images have no labels."""
    if images.targets is not None:
        all_rows = np.arange(len(images))
        for label, n in enumerate(images.targets.sum(0, dtype=np.int64).tolist()):
            yield ClassColumns(label, n, all_rows, _label_columns(images, label))
        return
    if not images.labelled:
        return
    columns = columns_of(images)
    order = np.argsort(images.label, kind="stable")
    labels, starts = np.unique(images.label[order], return_index=True)
    for label, rows in zip(labels.tolist(), np.split(order, starts[1:]), strict=True):
        yield ClassColumns(label, len(rows), rows, {name: column[rows] for name, column in columns.items()})


def _label_columns(images: ImageResults, label: int) -> dict[str, Floats]:
    columns: dict[str, Floats] = {}
    for name in images.variants:
        columns[f"accuracy/{name}"] = images.labels_right(name)[:, label]
        if name in images.background_label:
            columns[f"decision_consistency/{name}"] = _decisions_kept(images, name)[:, label]
    return columns


def _decisions_kept(images: ImageResults, variant: str) -> Floats:
    """(N, 1) whether the answer is that to the original, (N, L) of label sets; NaN without the variant."""
    if images.targets is None:
        same = (images.prediction[variant] == images.prediction["original"])[:, None]
    else:
        same = images.label_answers(variant) == images.label_answers("original")
    return np.where(images.valid(variant)[:, None], same.astype(np.float64), np.nan)


def _columns_without_answers(images: ImageResults) -> dict[str, Floats]:
    """Figures that no answer is needed for."""
    columns = {f"feature_consistency/{name}": cosine.astype(np.float64) for name, cosine in images.cosine.items()}
    return columns | {name: score.astype(np.float64) for name, score in images.scores.items()}
