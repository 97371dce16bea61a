"""Keeps pictures of the images that a change of background hurt most, during an evaluation."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.probe.results.heatmaps import packed_heatmap, packed_mask
from torch_bgdebias.probe.results.images import Example, ImageResults

__all__ = ["ExampleKeeper"]

_SIDE = 160  # pictures are shrunk to this


class ExampleKeeper:
    """Keeps the worst images: right as they are, wrong on another background, both with confidence.

    Args:
        size: how many.
        mean: per channel, normalisation to undo for the picture; ``None``: images are in [0, 1].
        std: per channel; required with ``mean``.
    """

    def __init__(self, size: int, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self.size, self._mean, self._std = size, mean, std
        self._heap: list[tuple[float, int, int, Example]] = []

    def add(
        self,
        result: ImageResults,
        pictures: Mapping[str, Tensor],
        heatmaps: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Consider a batch: its results, its images by variant, heatmaps (B, 1, H, W) by name, masks (B, 1, H, W).

        Of volumes (B, C, D, H, W) the slice that shows most of the object is the picture.
        """
        if not self.size:
            return
        if pictures["original"].ndim == 5:
            slice_index = _slice_with_most_object(pictures["original"], mask)
            pictures = {name: _slice_of(volume, slice_index) for name, volume in pictures.items()}
            heatmaps = {name: _slice_of(volume, slice_index) for name, volume in (heatmaps or {}).items()}
            mask = None if mask is None else _slice_of(mask, slice_index)
        harm = _harm(result)
        for row in np.argsort(-harm, kind="stable")[: self.size]:
            image = int(result.id[row])
            position = int(result.position[row]) if result.position is not None else int(row)
            key = (float(harm[row]), image, position)
            if len(self._heap) == self.size and key <= self._heap[0][:3]:
                continue
            thumbnails = {
                n: self._picture(p[row]) for n, p in pictures.items() if n in result.prediction and result.valid(n)[row]
            }
            prediction = {n: int(result.prediction[n][row]) for n in thumbnails}
            confidence = {n: float(result.confidence[n][row]) for n in thumbnails}
            size = thumbnails["original"].shape[:2]
            example = Example(
                image,
                int(result.label[row]),
                thumbnails,
                prediction,
                confidence,
                heatmaps={name: packed_heatmap(x[row, 0], size) for name, x in (heatmaps or {}).items()},
                mask=None if mask is None else packed_mask(mask[row, 0], size),
            )
            push = heapq.heappush if len(self._heap) < self.size else heapq.heappushpop
            push(self._heap, (*key, example))

    def join(self, keepers: Sequence[ExampleKeeper]) -> None:
        """Keep the worst of what several processes kept."""
        entries = [entry for keeper in keepers for entry in keeper._heap]
        self._heap = sorted(entries, key=lambda entry: entry[:3], reverse=True)[: self.size]
        heapq.heapify(self._heap)

    def examples(self) -> list[Example]:
        """What was kept, the worst first."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: entry[:3], reverse=True)]

    def _picture(self, image: Tensor) -> NDArray[np.uint8]:
        picture = image.detach().float().cpu()
        if self._mean is not None and self._std is not None:
            mean, std = (torch.as_tensor(x, dtype=torch.float32).reshape(-1, 1, 1) for x in (self._mean, self._std))
            picture = picture * std + mean
        longest = max(picture.shape[1:])
        if longest > _SIDE:
            size = [max(1, round(side * _SIDE / longest)) for side in picture.shape[1:]]
            picture = F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0]
        picture = picture.expand(3, -1, -1) if len(picture) == 1 else picture[:3]
        pixels: NDArray[np.uint8] = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return np.ascontiguousarray(pixels)


def _slice_with_most_object(volume: Tensor, mask: Tensor | None) -> Tensor:
    """(B,) which slice shows most of the object, the middle one where there is none."""
    middle = torch.full((len(volume),), volume.shape[2] // 2, device=volume.device)
    if mask is None:
        return middle
    object_area = mask[:, 0].flatten(2).sum(2)
    return torch.where(object_area.amax(1) > 0, object_area.argmax(1), middle)


def _slice_of(volume: Tensor, index: Tensor) -> Tensor:
    return volume[torch.arange(len(volume), device=volume.device), :, index.to(volume.device)]


def _harm(result: ImageResults) -> NDArray[np.float64]:
    """Confidence in the right class before plus confidence in a wrong class after; 0 for what was never right.

    Without labels the answer to the original counts as right.
    """
    original_answer = result.prediction["original"]
    right = np.where(result.correct("original") | ~result.labelled, result.confidence["original"], 0.0)
    wrong = np.zeros(len(result))
    for name in result.background_label:
        fooled = result.valid(name) & (
            ~result.correct(name) if result.labelled else result.prediction[name] != original_answer
        )
        wrong = np.maximum(wrong, np.where(fooled, result.confidence[name], 0.0))
    return np.where((right > 0) & (wrong > 0), right + wrong, np.maximum(right, wrong) * 1e-3)
