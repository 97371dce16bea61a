"""``grabcut_masks``: foreground masks for pictures that have none (OpenCV, extra ``opencv``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_bgdebias._optional import require
from torch_bgdebias.checks import check_count, check_finite, check_range, describe

__all__ = ["grabcut_certainty", "grabcut_masks"]

Rectangle = tuple[int, int, int, int]
#: pixels of a rectangle whose colours are compared
_COMPARED = 20_000
#: variance of a colour, in levels of 255, below which a component is taken to have this much
_LEAST_VARIANCE = 1.0


def grabcut_masks(
    images: Tensor,
    rect: Rectangle | Sequence[Rectangle] | Tensor | None = None,
    *,
    iterations: int = 5,
    margin: float = 0.05,
    seed: int = 0,
) -> Tensor:
    """Cut the foreground out of each picture with GrabCut, which learns the colours inside and outside a rectangle.

    Everything outside of the rectangle counts as background, so a picture that its object fills, or that shows the
    object at the border, comes out badly: measure against some given masks before relying on it
    (``bgdebias masks IN OUT --compare MASKS``). Runs on the CPU, picture by picture.

    Args:
        images: (B, 3, H, W), RGB, uint8, or floating point in [0, 1].
        rect: top, left, bottom, right in pixels (the last two exclusive) of a rectangle around the object: one for all
            pictures, or one for each (a (B, 4) tensor as from ``bounding_boxes`` serves). By default the picture
            without a border of ``margin``.
        iterations: of GrabCut, at least 1.
        margin: border that is background for certain, as a share of height and width, in (0, 0.5); only without
            ``rect``.
        seed: of OpenCV's random numbers, set anew for each picture: a mask depends on its picture alone.

    Returns:
        (B, 1, H, W) float32 of 0 and 1, on the images' device. Where GrabCut finds no foreground, or cannot run (a
        picture of one colour, a rectangle that holds the whole picture), the mask is the rectangle itself: all that is
        known of the object.

    Raises:
        ImportError: OpenCV is not there.
        TypeError, ValueError: images of another kind or range, a rectangle that is empty or outside of the picture,
            iterations or margin out of range.

    Source: GrabCut (Rother, Kolmogorov, Blake, 2004), as used by CLAD (arXiv 2210.02748) for data without masks.
    """
    masks, _ = _cut_images(images, rect, iterations, margin, seed)
    return masks


def grabcut_certainty(images: Tensor, rect: Tensor, *, iterations: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The masks of `grabcut_masks` within rectangles, and how surely their colours part object from background.

    Both mixtures of Gaussians that GrabCut ends with say how likely each pixel of the rectangle is object; the
    certainty is the overlap that its mask then expects with the truth (`torch_bgdebias.masks.making.protocol`), which
    does not depend on how much of its rectangle an object fills.

    Args:
        images: (B, 3, H, W) as in `grabcut_masks`.
        rect: (B, 4) or (4,).
        iterations: of GrabCut.
        seed: of OpenCV's random numbers.

    Returns:
        Masks (B, 1, H, W), and certainties (B,) float32 in [0, 1]: 0 where nothing was found.
    """
    return _cut_images(images, rect, iterations, 0.05, seed)


def _cut_images(images: Tensor, rect: Any, iterations: int, margin: float, seed: int) -> tuple[Tensor, Tensor]:
    _check(images, iterations, margin)
    cv2 = require("cv2", purpose="grabcut_masks")
    height, width = images.shape[2:]
    rectangles = _rectangles(rect, len(images), height, width, margin)
    pictures = images if images.dtype == torch.uint8 else images.float().mul(255).round().to(torch.uint8)
    masks = np.zeros((len(images), 1, height, width), np.float32)
    confidence = torch.zeros(len(images))
    for row, (picture, box) in enumerate(zip(pictures.cpu().permute(0, 2, 3, 1).numpy(), rectangles, strict=True)):
        masks[row, 0], confidence[row] = _cut(cv2, np.ascontiguousarray(picture[..., ::-1]), box, iterations, seed)
    return torch.from_numpy(masks).to(images.device), confidence


def _cut(cv2: Any, picture: Any, box: Rectangle, iterations: int, seed: int) -> tuple[Any, float]:
    """One mask (H, W) of 0 and 1, and how sure it is."""
    top, left, bottom, right = box
    inside = np.zeros(picture.shape[:2], np.uint8)
    inside[top:bottom, left:right] = 1
    if inside.all() or bool((picture == picture[0, 0]).all()):
        return inside, 0.0
    cv2.setRNGSeed(seed)
    labels = np.where(inside, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(picture, labels, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    foreground = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    if not foreground.any():
        return inside, 0.0
    colours, is_object = picture[top:bottom, left:right].reshape(-1, 3), foreground[top:bottom, left:right].reshape(-1)
    step = max(1, len(colours) // _COMPARED)
    return foreground, _expected_overlap(colours[::step].astype(np.float64), is_object[::step], models)


def _expected_overlap(colours: Any, is_object: Any, models: tuple[Any, Any]) -> float:
    """The overlap with the truth that a cut expects, were each pixel object as likely as its colour says."""
    background, foreground = (_log_density(colours, model[0]) for model in models)
    share = 1 / (1 + np.exp(np.clip(background - foreground, -50, 50)))
    return float(share[is_object].sum() / (is_object.sum() + share[~is_object].sum()))


def _log_density(colours: Any, model: Any) -> Any:
    """The log density of OpenCV's mixture: five weights, five means, five covariances, one after the other."""
    weights, means, spreads = model[:5], model[5:20].reshape(5, 3), model[20:].reshape(5, 3, 3)
    terms = [np.full(len(colours), -700.0)]
    for weight, mean, spread in zip(weights, means, spreads, strict=True):
        if weight > 0:
            spread = spread + _LEAST_VARIANCE * np.eye(3)
            away = colours - mean
            distance = (away @ np.linalg.inv(spread) * away).sum(1)
            terms.append(np.log(weight) - 0.5 * distance - 0.5 * np.log(np.linalg.det(spread)))
    return np.logaddexp.reduce(terms)


def _check(images: Tensor, iterations: int, margin: float) -> None:
    if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise TypeError(f"images: expected a uint8 or float tensor (B, 3, H, W), got {describe(images)}")
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise ValueError(f"images: expected shape (B, 3, H, W), got {describe(images)}")
    if images.is_floating_point():
        check_range(check_finite(images, name="images"), 0.0, 1.0, name="images")
    check_count(iterations, name="iterations")
    if not 0.0 < margin < 0.5:
        raise ValueError(f"margin: expected a share in (0, 0.5), got {margin!r}")


def _rectangles(rect: Any, count: int, height: int, width: int, margin: float) -> list[Rectangle]:
    if rect is None:
        # at least one pixel of border, and at least one pixel inside where the picture has more than two
        top, left = (min(max(1, round(side * margin)), (side - 1) // 2) for side in (height, width))
        return [(top, left, height - top, width - left)] * count
    boxes = torch.as_tensor(rect)
    boxes = boxes.expand(count, 4) if boxes.ndim == 1 else boxes
    if boxes.shape != (count, 4) or boxes.is_floating_point():
        raise ValueError(
            f"rect: expected (top, left, bottom, right) in whole pixels, one or {count} of them, got {rect}"
        )
    for index, (top, left, bottom, right) in enumerate(boxes.tolist()):
        if not (0 <= top < bottom <= height and 0 <= left < right <= width):
            raise ValueError(
                f"rect: expected 0 <= top < bottom <= {height} and 0 <= left < right <= {width}, "
                f"got {(top, left, bottom, right)} for picture {index}"
            )
    return [tuple(box) for box in boxes.tolist()]
