"""Per-image results: the rows from which all numbers of a report are computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Example", "ImageResults"]


@dataclasses.dataclass(eq=False)
class ImageResults:
    """The model's answers for each of N images: one row per image, sorted by ``id``.

    Attributes:
        id: (N,) uint64, fingerprint of the image's content: the same image has the same one in every report.
        label: (N,) int64; -1 where the class is not known. Of label sets their numbers: bit l is label l, beyond 62
            labels a hash.
        prediction: per variant (N,) int64, numbered as ``label``; -1 where the image has no such variant.
        confidence: per variant (N,) float32, probability of the predicted class (of label sets the product over the
            labels); NaN without the variant.
        cosine: per mixed variant (N,) float32, cosine similarity to the original's embedding; NaN without the variant.
        background_label: per mixed variant (N,) int64, class that the background came from; -1 unknown or no variant.
        scores: further per-image scores (N,) float32, NaN where undefined.
        position: (N,) int64, place of the image in the loader that was evaluated (in an unshuffled one: in its data
            set); ``None`` when unknown.
        targets: (N, L) uint8 of 0 and 1, which labels each image has; ``None`` unless the labels are sets.
        log_odds: per variant (N, K) float32, log odds of each class against all others, or of each label; NaN without
            the variant; empty unless they were kept.
        groups: names of each image's group (N,) by what groups them, such as a site or a camera.
        unit: (N,) names of what images belong together, such as a patient; ``None``: every image its own.
    """

    id: NDArray[np.uint64]
    label: NDArray[np.int64]
    prediction: dict[str, NDArray[np.int64]]
    confidence: dict[str, NDArray[np.float32]]
    cosine: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    background_label: dict[str, NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    scores: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    position: NDArray[np.int64] | None = None
    targets: NDArray[np.uint8] | None = None
    log_odds: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    groups: dict[str, NDArray[np.str_]] = dataclasses.field(default_factory=dict)
    unit: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.label)

    @property
    def variants(self) -> list[str]:
        """The variants' names in the order of evaluation, ``original`` first."""
        return list(self.prediction)

    def valid(self, variant: str) -> NDArray[np.bool_]:
        """(N,) whether the image has this variant."""
        return np.asarray(self.prediction[variant] >= 0)

    def correct(self, variant: str) -> NDArray[np.bool_]:
        """(N,) whether it was classified correctly, of label sets whether all labels were.

        False where the image has no such variant (see ``valid``) or no known class.
        """
        return np.asarray((self.prediction[variant] == self.label) & (self.label >= 0))

    def at(self, rows: NDArray[np.int64]) -> ImageResults:
        """Some of the images (n,), in this order."""
        columns: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            columns[field.name] = {k: v[rows] for k, v in value.items()} if isinstance(value, dict) else value
            if isinstance(value, np.ndarray):
                columns[field.name] = value[rows]
        return ImageResults(**columns)

    @property
    def labelled(self) -> bool:
        """Whether the images' classes are known."""
        return bool((self.label >= 0).all())

    def label_answers(self, variant: str) -> NDArray[np.bool_]:
        """(N, L) which labels the model gave, where the labels are sets."""
        return np.asarray(self.log_odds[variant] > 0)

    def labels_right(self, variant: str) -> NDArray[np.float64]:
        """(N, L) 1 where the model is right about a label, 0 where not, NaN without the variant."""
        assert self.targets is not None
        right = self.label_answers(variant) == (self.targets > 0)
        return np.where(self.valid(variant)[:, None], right.astype(np.float64), np.nan)


@dataclasses.dataclass(eq=False)
class Example:
    """Pictures of one image under several variants, for display.

    Attributes:
        id: as in `ImageResults`.
        label: the image's class, numbered as there.
        pictures: per variant uint8 (h, w, 3), ``original`` among them.
        prediction: per variant.
        confidence: per variant, probability of the predicted class.
        heatmaps: of the original by attribution, uint8 (h, w) around 128 (see ``results/heatmaps.py``).
        mask: uint8 (h, w), 255 = foreground; ``None`` where it was not kept.
    """

    id: int
    label: int
    pictures: dict[str, NDArray[np.uint8]]
    prediction: dict[str, int]
    confidence: dict[str, float]
    heatmaps: dict[str, NDArray[np.uint8]] = dataclasses.field(default_factory=dict)
    mask: NDArray[np.uint8] | None = None
