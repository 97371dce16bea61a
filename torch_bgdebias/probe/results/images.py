"""What a model said about every image: the rows from which all numbers of a report are computed."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

__all__ = ["Example", "ImageResults"]


@dataclasses.dataclass(eq=False)
class ImageResults:
    """What the model said about each of N images: one row an image, sorted by ``id``.

    Attributes:
        id: (N,) uint64, fingerprint of the image's content: the same image has the same one in every report.
        label: (N,) int64.
        prediction: per variant (N,) int64; -1 where the image has no such variant.
        confidence: per variant (N,) float32, softmax probability of the predicted class; NaN without the variant.
        cosine: per mixed variant (N,) float32, cosine similarity to the original's embedding; NaN without the variant.
        background_label: per mixed variant (N,) int64, class that the background came from; -1 unknown or no variant.
        scores: further per-image scores (N,) float32, NaN where undefined.
        position: (N,) int64, place of the image in the loader that was evaluated (in an unshuffled one: in its data
            set); ``None`` when unknown.
    """

    id: NDArray[np.uint64]
    label: NDArray[np.int64]
    prediction: dict[str, NDArray[np.int64]]
    confidence: dict[str, NDArray[np.float32]]
    cosine: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    background_label: dict[str, NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    scores: dict[str, NDArray[np.float32]] = dataclasses.field(default_factory=dict)
    position: NDArray[np.int64] | None = None

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
        """(N,) whether it was classified correctly (False where the image has no such variant: see ``valid``)."""
        return np.asarray(self.prediction[variant] == self.label)


@dataclasses.dataclass(eq=False)
class Example:
    """Pictures of one image under several variants, for the eye.

    Attributes:
        id: as in :class:`ImageResults`.
        label: the image's class.
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
