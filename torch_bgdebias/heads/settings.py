"""``HeadSettings``: how a head is fitted, validated once."""

from __future__ import annotations

import dataclasses
from typing import TypedDict

from torch_bgdebias.checks import check_count

__all__ = ["PENALTIES", "HeadOptions", "HeadSettings"]

#: where the search for the best penalty begins
PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)


class HeadOptions(TypedDict, total=False):
    """The keyword arguments of `fit_debiased_head`; see `HeadSettings`."""

    copies: int
    crop_area: float
    original_weight: float
    penalties: tuple[float, ...] | None
    folds: int
    calibrate: bool
    layer: str | None
    num_classes: int | None
    group: str | int | None
    seed: int


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How a head is fitted.

    Args:
        copies: swapped images beside each image.
        crop_area: below 1 every image and every swapped copy is seen a second time as a random crop, which keeps at
            least this share of its area; in (0, 1]. Takes twice the time; 0.5 gained a little on photographs.
        original_weight: of the images as they are, beside 1 for their swapped copies together. They carry the bias, and
            what goes with the usual background is worth something on images with the usual background: 0 leaves them
            out.
        penalties: to choose from by cross-validation, on images and swapped images weighed as in the fit: the strongest
            within one standard error of the best. A single one is taken as it is. ``None``: 0.03 to 3 and, while the
            best is the last one on its side, up to three decades beyond.
        folds: of the cross-validation.
        calibrate: divide the logits by a temperature, fitted to the same folds' images, so that probabilities are about
            as high as answers are right; a strong penalty makes them low. The answers stay. Not with one penalty.
        layer: name of the last linear layer; found by itself where there is one candidate.
        num_classes: K; by default the layer's own number of outputs where it has at most twice as many as there are
            classes in the data, else the number of classes in the data.
        group: where in a batch a whole number names the photograph that an image was made from, so that no photograph
            is on both sides of a split; ``None``: every image is one of its own.
        seed: of the swaps, crops and folds.

    Raises:
        ValueError: fewer than one copy, an area out of (0, 1], a weight below 0, no penalty or one that is not
            positive, fewer than two folds.
    """

    copies: int = 4
    crop_area: float = 1.0
    original_weight: float = 0.5
    penalties: tuple[float, ...] | None = None
    folds: int = 4
    calibrate: bool = True
    layer: str | None = None
    num_classes: int | None = None
    group: str | int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_count(self.copies, name="copies")
        check_count(self.folds, name="folds", least=2)
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop_area: expected a share in (0, 1], 1 for no crops, got {self.crop_area!r}")
        given = self.penalties
        if given is not None and not (given and all(penalty > 0 for penalty in given)):
            raise ValueError(f"penalties: expected numbers above 0, got {self.penalties!r}")
        if not self.original_weight >= 0:
            raise ValueError(f"original_weight: expected a number of at least 0, got {self.original_weight!r}")
