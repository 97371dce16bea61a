"""``CorrelatedBackgrounds``: foregrounds on backgrounds whose category correlates with the class as strongly as set.

The controlled experiment of Measuring the Effect of Background on Classification and Feature Importance
(arXiv 2512.05937): the same objects, once with a background that gives the class away, once with any, seen straight on
or from changing camera positions.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from torch_bgdebias.backgrounds.pool import BackgroundSource, Pool, as_pool
from torch_bgdebias.checks import check_option, check_range, check_share, check_size, describe
from torch_bgdebias.compositing import paste
from torch_bgdebias.files import first_few
from torch_bgdebias.subsets import length_of

__all__ = ["CAMERAS", "Camera", "CorrelatedBackgrounds"]


class Camera(NamedTuple):
    """How far the view of a foreground may change; each is drawn uniformly from +- the value.

    Attributes:
        degrees: turned in the picture's plane.
        scale: larger or smaller by this share.
        shift: moved by this share of the picture's size, in each direction.
        perspective: corners moved inwards by up to this share of the picture's size (kornia's distortion scale / 2).
    """

    degrees: float
    scale: float
    shift: float
    perspective: float


#: camera levels: the object seen almost straight on, from changing places, and from far off the axis
CAMERAS: dict[str, Camera] = {
    "frontal": Camera(degrees=3, scale=0.05, shift=0.03, perspective=0.0),
    "medium": Camera(degrees=12, scale=0.15, shift=0.08, perspective=0.1),
    "high": Camera(degrees=25, scale=0.3, shift=0.15, perspective=0.2),
}


class CorrelatedBackgrounds(Dataset[tuple[Tensor, int, Tensor, int]]):
    """Compose each foreground onto a background of the bank; items (image, label, mask, background_label).

    With probability ``correlation`` the background is of the category assigned to the sample's class; else its category
    is drawn uniformly from **all** the bank's categories, the assigned one among them. What item i gets depends on
    seed, epoch and i alone.

    Args:
        foregrounds: data set of (image float (3, H, W) in [0, 1], label, mask (1, H, W) in [0, 1]); more entries are
            dropped. Should yield the same item for the same index if the result is to be reproducible.
        bank: any object with ``images`` (N, 3, Hb, Wb), uint8 or float in [0, 1], and ``labels`` (N,) integer category
            per image, -1 unknown (never used): drawn scenes, a ``BackgroundBank`` (its normalisation is not applied,
            its lists of forbidden foregrounds are obeyed).
        correlation: in [0, 1].
        camera: ``"frontal"``, ``"medium"``, ``"high"``, a ``Camera`` of your own, or ``None``: how foreground and mask
            are warped together at random.
        seed: of all draws.
        size: (H, W) of the result, or one int for a square. ``None``: the foreground's. A foreground keeps its size, in
            the middle, unless it does not fit; backgrounds are resized.
        scale: the foreground's size relative to its own: a factor, or (low, high) to draw from.
        mapping: category of each class, a mapping or a sequence by class. By default class c goes with the bank's
            category number c mod K, categories sorted.

    Raises:
        TypeError: a bank without images and labels of these kinds.
        ValueError: an option out of range, a category that the bank lacks, a bank without known categories; when an
            item is read, a label without a category, a mask that does not fit its image, or
            values outside [0, 1] (normalise the result, not the foregrounds).

    Example:
        >>> import torch
        >>> from torch_bgdebias.data import draw_scenes
        >>> square = torch.zeros(1, 32, 32)
        >>> square[:, 8:24, 8:24] = 1
        >>> foregrounds = [(torch.ones(3, 32, 32), label, square) for label in (0, 1, 2)]
        >>> data = CorrelatedBackgrounds(foregrounds, draw_scenes(4, 32), correlation=1.0)
        >>> [data[i][3] for i in range(3)]
        [0, 1, 2]
    """

    def __init__(
        self,
        foregrounds: Dataset[Any],
        bank: BackgroundSource,
        correlation: float = 1.0,
        camera: str | Camera | None = None,
        seed: int = 0,
        size: int | tuple[int, int] | None = None,
        *,
        scale: float | tuple[float, float] = 1.0,
        mapping: Mapping[int, int] | Sequence[int] | None = None,
    ) -> None:
        check_share(correlation, name="correlation", kind="a number")
        if isinstance(camera, str):
            camera = CAMERAS[check_option(camera, CAMERAS, name="camera")]
        self.foregrounds, self.correlation, self.camera, self.seed = foregrounds, float(correlation), camera, seed
        self.size = check_size(size)
        self.scale = _interval(scale)
        self._pool = _checked_pool(bank)
        self._labels = torch.as_tensor(self._pool.labels).cpu()
        self.categories: list[int] = sorted(set(self._labels.tolist()) - {-1})
        if not self.categories:
            raise ValueError("bank: expected at least one background of a known category, got none")
        self.mapping = _checked_mapping(mapping, self.categories)
        self._epoch: Tensor = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]  # workers that stay alive see it change

    def set_epoch(self, epoch: int) -> None:
        """Draw new backgrounds and camera positions from now on; running loader workers follow."""
        self._epoch[0] = epoch

    @property
    def epoch(self) -> int:
        """The epoch that the current draws belong to."""
        return int(self._epoch[0])

    def category_of(self, label: int) -> int:
        """The background category assigned to a class.

        Raises:
            ValueError: ``mapping`` has no entry for the class.
        """
        if self.mapping is None:
            return self.categories[label % len(self.categories)]
        if label not in self.mapping:
            raise ValueError(f"mapping: expected a category for class {label}, has {first_few(sorted(self.mapping))}")
        return self.mapping[label]

    def __len__(self) -> int:
        return length_of(self.foregrounds)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index: expected one of {len(self)} items, got {index}")
        index %= len(self)
        image, label, mask = _checked_item(self.foregrounds[index], index)
        # one stream for the background and one for the camera: the same index sees the same background at every level
        draws, pose = (_generator(self.seed, self.epoch, index, stream) for stream in range(2))
        category = self._draw_category(label, draws)
        members = self._members(label, category)
        drawn_background = members[torch.randint(len(members), (1,), generator=draws)]
        image, mask = self._on_canvas(image, mask, pose)
        background = self._pool.take(drawn_background, image[None]).clamp(0, 1)
        composed = paste(image[None], mask[None], background)[0]
        return composed, label, mask, category

    def _members(self, label: int, category: int) -> Tensor:
        """Positions of the category's backgrounds that a foreground of class ``label`` may stand on."""
        belongs = self._labels == category
        allowed = self._pool.allowed(torch.tensor([label]))
        members = (belongs if allowed is None else belongs & allowed[0]).nonzero().flatten()
        if not len(members):
            raise ValueError(
                f"bank: expected a background of category {category} for class {label}, its filters leave none"
            )
        return members

    def _draw_category(self, label: int, generator: torch.Generator) -> int:
        assigned = self.category_of(label)
        correlated, category_draw = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if correlated < self.correlation:
            return assigned
        return self.categories[int(category_draw * len(self.categories))]

    def _on_canvas(self, image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The foreground at its size in the middle of the canvas, seen by the camera."""
        draws = torch.rand(13, generator=generator)
        canvas = self.size or (image.shape[1], image.shape[2])
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * float(draws[0])
        factor = min(factor, canvas[0] / image.shape[1], canvas[1] / image.shape[2]) if self.size else factor
        with_mask = torch.cat([image, mask])[None]
        inner = tuple(max(1, round(side * factor)) for side in image.shape[1:])
        if inner != tuple(image.shape[1:]):
            with_mask = F.interpolate(with_mask, inner, mode="bilinear", antialias=True)
        top, left = (canvas[0] - inner[0]) // 2, (canvas[1] - inner[1]) // 2
        if inner != canvas:  # negative padding crops, when the object is drawn larger than the picture
            pads = (left, canvas[1] - inner[1] - left, top, canvas[0] - inner[0] - top)
            colour, cover = F.pad(with_mask[:, :-1], pads), F.pad(with_mask[:, -1:], pads)
            with_mask = torch.cat([colour, cover], 1)
        if self.camera is not None:
            with_mask = _warped(with_mask, self.camera, draws[1:])
        return with_mask[0, :-1].clamp(0, 1), with_mask[0, -1:].clamp(0, 1)


def _warped(with_mask: Tensor, camera: Camera, draws: Tensor) -> Tensor:
    """Warp colours and mask (1, 4, H, W) by the homography that the draws give; outside of the picture is mask 0."""
    from kornia.geometry.transform import get_perspective_transform, warp_perspective

    height, width = with_mask.shape[2:]
    signed = 2 * draws - 1
    angle = math.radians(camera.degrees) * signed[0]
    zoom = 1 + camera.scale * signed[1]
    extent = torch.tensor([width, height])
    corners = torch.tensor([[0.0, 0.0], [1, 0], [1, 1], [0, 1]])
    inwards = camera.perspective * draws[4:12].view(4, 2) * (1 - 2 * corners)
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    moved = ((corners + inwards - 0.5) * extent) @ rotation.T * zoom + (0.5 + camera.shift * signed[2:4]) * extent
    # corners are pixel edges, kornia's coordinates are pixel centres
    matrix = get_perspective_transform((corners * extent - 0.5)[None], (moved - 0.5)[None])
    colour, cover = with_mask[:, :-1], with_mask[:, -1:]
    # warped with the mask as weight, so that no black from outside of the picture bleeds into the object's edge
    warped = warp_perspective(torch.cat([colour * cover, cover], 1), matrix, (height, width), align_corners=True)
    cover = warped[:, -1:]
    return torch.cat([warped[:, :-1] / cover.clamp(min=1e-6), cover], 1)


def _generator(seed: int, epoch: int, index: int, stream: int) -> torch.Generator:
    """Numbers that belong to one item: neighbouring seeds, epochs and indices give unrelated streams.

    Not by `derive_seed`: figures of experiments rest on these draws.
    """
    mixed = 0x9E3779B97F4A7C15
    for value in (seed, epoch, index, stream):  # splitmix64, a bijection with good avalanche
        mixed = (mixed ^ (value & 0xFFFFFFFFFFFFFFFF)) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return torch.Generator().manual_seed(mixed & 0x7FFFFFFFFFFFFFFF)


def _interval(scale: float | tuple[float, float]) -> tuple[float, float]:
    low, high = (scale, scale) if isinstance(scale, int | float) else scale
    if not 0 < low <= high:
        raise ValueError(f"scale: expected a positive factor or (low, high), got {scale!r}")
    return float(low), float(high)


def _checked_pool(bank: BackgroundSource) -> Pool:
    """The bank's backgrounds in [0, 1], on the host."""
    pool = as_pool(bank, name="bank").unnormalised()
    if pool.labels is None:
        raise TypeError("bank: expected .labels, an integer category for each image, got None")
    if not isinstance(pool.images, Tensor):
        raise TypeError("bank: expected images of one size (N, C, H, W), got a list")
    if pool.images.is_floating_point() and not (float(pool.images.amin()) >= 0 and float(pool.images.amax()) <= 1):
        raise ValueError("bank: expected float images in [0, 1], not normalised, got values outside")
    return dataclasses.replace(pool, images=pool.images.cpu())


def _checked_mapping(mapping: Mapping[int, int] | Sequence[int] | None, categories: list[int]) -> dict[int, int] | None:
    if mapping is None:
        return None
    pairs = dict(mapping) if isinstance(mapping, Mapping) else dict(enumerate(mapping))
    unknown = sorted(set(pairs.values()) - set(categories))
    if unknown:
        raise ValueError(f"mapping: expected categories of the bank ({first_few(categories, 20)}), got {unknown[:5]}")
    return pairs


def _checked_item(item: Any, index: int) -> tuple[Tensor, int, Tensor]:
    item_name = f"foregrounds[{index}]"
    if not isinstance(item, Sequence) or len(item) < 3:
        raise TypeError(f"{item_name}: expected (image, label, mask), got {type(item).__name__}")
    image, label, mask = item[:3]
    for name, value in (("image", image), ("mask", mask)):
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim != 3:
            raise TypeError(
                f"{item_name}: expected {name} as a float tensor (C, H, W) in [0, 1], got {describe(value)}"
            )
        check_range(value, 0.0, 1.0, name=f"{item_name} {name}")
    if mask.shape != (1, *image.shape[1:]):
        raise ValueError(f"{item_name}: expected mask (1, {image.shape[1]}, {image.shape[2]}), got {tuple(mask.shape)}")
    return image, int(label), mask
