"""``Pool``: one interface to every source of backgrounds, and the one conversion to an image's units and size."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_bgdebias.backgrounds.forbidden import ForbiddenPairs
from torch_bgdebias.backgrounds.units import doubt_beside_images, doubtful, require_one_normalisation
from torch_bgdebias.checks import (
    all_finite,
    check_both_or_none,
    check_finite,
    check_label,
    check_mask,
    describe,
    values_readable,
)
from torch_bgdebias.class_names import plain_name
from torch_bgdebias.compositing import fills_image, tile_fill
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.plain import in_units
from torch_bgdebias.precision import working_dtype

__all__ = [
    "BackgroundSource",
    "Cells",
    "Labelled",
    "Pool",
    "as_pool",
    "check_images",
    "check_normalisation",
    "in_image_units",
]

#: backgrounds of a pool that are inspected for their units
_SOME = 16
#: number of dimensions -> what has so many
_RANKS = {4: "images (N, C, H, W)", 5: "volumes (N, C, D, H, W)"}
_EXPECTED = "expected uint8 or float images (N, C, H, W), or a bank of them"


@runtime_checkable
class Labelled(Protocol):
    """Images (N, C, H, W) with a class or category each (N,), or ``None``: drawn scenes, for example."""

    @property
    def images(self) -> Tensor:
        """The backgrounds, uint8 or float."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Their classes."""
        ...


@runtime_checkable
class _Normalised(Protocol):
    @property
    def mean(self) -> Tensor | Sequence[float] | None: ...

    @property
    def std(self) -> Tensor | Sequence[float] | None: ...


@runtime_checkable
class _HasForbiddenPairs(Protocol):
    @property
    def forbidden_pairs(self) -> ForbiddenPairs | None: ...


@runtime_checkable
class _HasClasses(Protocol):
    @property
    def classes(self) -> Sequence[str] | None: ...


@dataclasses.dataclass(frozen=True)
class Cells:
    """Where Voronoi cells lie and what fills them, as `voronoi_composite` takes it; one cell is plain pasting.

    Attributes:
        sites: (B, K, 2) float, (y, x) in pixels.
        index: (B, K) int64, which background.
        offset: (B, K, 2) int64, where in the background the image's top left pixel lies.
    """

    sites: Tensor
    index: Tensor
    offset: Tensor


@dataclasses.dataclass(frozen=True)
class Pool:
    """Backgrounds to choose from; `as_pool` makes one.

    Args:
        images: (N, C, Hb, Wb), uint8 or float; or a list of N pictures (C, H, W) of any sizes. Of volumes with a depth
            before the height, here and in what follows.
        labels: (N,) int64, -1 unknown; ``None`` where there are none.
        mean: (C,) normalisation of the (scaled) pixels, on the images' device; ``None``: they are in the images' units.
        std: (C,), with ``mean``.
        masks: (N, 1, Hb, Wb) foregrounds that are tiled over when an image is taken.
        usable: (N,) bool, false where the foreground leaves no background; ``None``: all are.
        forbidden: which foreground classes must not get which images.
        name: the argument's name, for messages.
        own: whether they were cut out of the very images that they are for, so that they have their units.
        classes: names of the labels 0, 1, ... where the source has them and the labels are its own.
    """

    images: Tensor | Sequence[Tensor]
    labels: Tensor | None = None
    mean: Tensor | Sequence[float] | None = None
    std: Tensor | Sequence[float] | None = None
    masks: Tensor | None = None
    usable: Tensor | None = None
    forbidden: ForbiddenPairs | None = None
    name: str = "backgrounds"
    own: bool = False
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def unnormalised(self) -> Pool:
        """The same pool for images in [0, 1]."""
        return dataclasses.replace(self, mean=None, std=None)

    def take(self, index: Tensor, like: Tensor) -> Tensor:
        """The backgrounds at ``index`` in the size, dtype, units and place of the images ``like``.

        Args:
            index: (n,) int64; -1 gives the first background.
            like: (B, C, H, W) float images.

        Returns:
            (n, C, H, W), foregrounds removed where the pool has masks.

        Raises:
            ValueError: other channels than the images, or uint8 without a normalisation beside normalised images.
        """
        index = index.clamp(min=0)
        if not isinstance(self.images, Tensor):
            pictures = [self._as_image_units(self.images[i][None], like, None) for i in index.tolist()]
            return torch.cat(pictures)
        masks = None if self.masks is None else self.masks[index.to(self.masks.device)].to(like.device)
        return self._as_image_units(self.images[index.to(self.images.device)], like, masks)

    def composite(self, image: Tensor, mask: Tensor, cells: Cells) -> Tensor:
        """Images in front of this pool's backgrounds, each Voronoi cell with a background and an offset of its own.

        The operator tiles and crops as it reads: a uint8 pool of any size stays as it is, and only pixels that are seen
        are scaled and normalised, by the formula that `take` uses (`ops.plain.in_units`).

        Args:
            image: (B, C, H, W) float.
            mask: (B, 1, H, W), 1 = foreground.
            cells: which background fills each cell, and from where.

        Returns:
            (B, C, H, W) in the image's dtype.

        Raises:
            ValueError: a pool of pictures of several sizes, or with foregrounds to be removed.
        """
        if not isinstance(self.images, Tensor) or self.masks is not None:
            raise ValueError(f"{self.name}: expected images of one size without foregrounds for cells; take() them")
        self.check_units(image, refuse=False)
        geometry = (cells.sites, cells.index, cells.offset)
        return voronoi_composite(image, mask, self.images, *geometry, self.mean, self.std)

    def check_units(self, image: Tensor, *, refuse: bool = True) -> None:
        """Refuse backgrounds in other units than the images; warn of float ones that look so.

        Where looking at the images is free (see `checks`).

        Args:
            image: (B, C, H, W) that backgrounds are for.
            refuse: else all are warned of: a training goes on, a figure would be wrong.
        """
        if self.own:
            return
        sample = self.images[:: max(1, len(self) // _SOME)] if isinstance(self.images, Tensor) else self.images[0]
        text = doubt_beside_images(sample, self.mean, self.std, image, name=self.name)
        if text and refuse and not doubtful(sample, self.mean):
            raise ValueError(text)
        if text:
            warnings.warn(text, stacklevel=4)

    def in_classes(self, names: Sequence[str]) -> Pool:
        """The same pool with labels in another numbering: that of the classes ``names``, by their names.

        Categories that are none of these classes keep apart from each other, from K on. A pool without names of its own
        stays as it is.
        """
        if self.labels is None or self.classes is None:
            return self
        position = {plain_name(name): number for number, name in enumerate(names)}
        number = [position.get(plain_name(name), len(names) + i) for i, name in enumerate(self.classes)]
        table = torch.tensor([*number, -1], device=self.labels.device)  # the last one for -1: unknown
        is_known = self.labels < len(self.classes)  # a bank may hold labels beyond its names
        renumbered = torch.where(is_known, table[self.labels.clamp(max=len(number) - 1)], self.labels + len(names))
        return dataclasses.replace(self, labels=renumbered, classes=None)

    def allowed(self, label: Tensor) -> Tensor | None:
        """(B, N) bool: may a foreground of each class ``label`` (B,) stand on each background? ``None``: all may."""
        return None if self.forbidden is None else ~self.forbidden.table(label, len(self))

    def _as_image_units(self, images: Tensor, like: Tensor, masks: Tensor | None) -> Tensor:
        if images.shape[1] != like.shape[1]:
            expected, channels = like.shape[1], images.shape[1]
            raise ValueError(f"{self.name}: expected {expected} channels like the images, got {channels}")
        if images.ndim != like.ndim:
            raise ValueError(f"{self.name}: expected {_RANKS[like.ndim]} like the images, got {describe(images)}")
        self.check_units(like)
        converted = in_image_units(images.to(like.device), self.mean, self.std, dtype=like.dtype)
        if masks is not None:
            converted = tile_fill(converted, masks)
        if converted.shape[2:] != like.shape[2:]:
            exact = converted.to(working_dtype(converted.dtype))  # torch does not shrink bfloat16 on a CPU
            volumes = like.ndim == 5  # of which torch has no antialiasing
            mode = "trilinear" if volumes else "bilinear"
            converted = F.interpolate(exact, like.shape[2:], mode=mode, antialias=not volumes).to(like.dtype)
        return converted


#: what `as_pool` takes
BackgroundSource = Tensor | Labelled | Pool


def as_pool(
    source: BackgroundSource,
    *,
    labels: Tensor | None = None,
    masks: Tensor | None = None,
    mean: Tensor | Sequence[float] | None = None,
    std: Tensor | Sequence[float] | None = None,
    name: str = "backgrounds",
) -> Pool:
    """Backgrounds from a tensor, a bank in memory or streamed, or anything with images and labels.

    Args:
        source: uint8 or float images (N, C, H, W), an object with such ``images`` and ``labels`` (and, as a
            ``BackgroundBank``, ``mean``, ``std`` and lists of forbidden foregrounds), or a pool, which stays as it is.
        labels: (N,) instead of the source's own.
        masks: (N, 1, H, W) foregrounds still to be removed.
        mean: per channel, the images' normalisation: uint8 backgrounds follow it, unless the source has its own.
            Float backgrounds without a normalisation of their own are in the images' units already.
        std: with ``mean``.
        name: the argument's name, for messages.

    Raises:
        TypeError: no such images, labels that are no integers.
        ValueError: no image, another rank, masks, labels or a normalisation that do not fit; a source with another
            normalisation than the images'.
    """
    if isinstance(source, Pool):
        return source
    own_mean = own_std = None
    forbidden = classes = None
    if isinstance(source, Tensor):
        images = source
    elif isinstance(source, Labelled) and isinstance(source.images, Tensor):
        images = source.images
        if labels is None:
            labels = source.labels
            classes = source.classes if isinstance(source, _HasClasses) else None
        if isinstance(source, _Normalised):
            own_mean, own_std = source.mean, source.std
        if isinstance(source, _HasForbiddenPairs):
            forbidden = source.forbidden_pairs
    else:
        raise TypeError(f"{name}: {_EXPECTED}, got {describe(source)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{name}: {_EXPECTED}, got {describe(images)}")
    if images.ndim not in _RANKS:
        raise ValueError(f"{name}: expected shape (N, C, H, W), got {describe(images)}")
    if not len(images):
        raise ValueError(f"{name}: expected at least one image, got none")
    if own_mean is None and own_std is None and images.dtype == torch.uint8:
        own_mean, own_std = mean, std
    require_one_normalisation((own_mean, own_std), (mean, std), name=name)
    check = check_normalisation(own_mean, own_std, images)
    if labels is not None:
        labels = check_label(torch.as_tensor(labels), len(images), name=f"{name.removesuffix('s')}_labels")
    usable = None
    if masks is not None:
        shape = (len(images), 1, *images.shape[2:])
        masks = check_mask(masks, name=f"{name.removesuffix('s')}_masks")
        if masks.shape != shape:
            raise ValueError(f"{name.removesuffix('s')}_masks: expected shape {shape}, got {tuple(masks.shape)}")
        usable = ~fills_image(masks)
    names = None if classes is None else tuple(map(str, classes))
    return Pool(images, labels, *check, masks, usable, forbidden, name, classes=names)


def in_image_units(
    images: Tensor,
    mean: Tensor | Sequence[float] | None,
    std: Tensor | Sequence[float] | None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Backgrounds (n, C, H, W) as floats: uint8 scaled to [0, 1], then normalised where there is a mean.

    Args:
        images: uint8 or float.
        mean: (C,), or ``None``.
        std: (C,), or ``None``.
        dtype: of the result; float32 for uint8 and the images' own otherwise by default.

    Raises:
        ValueError: results beyond the numbers of half precision (seen on the CPU).
    """
    dtype = dtype or (torch.float32 if images.dtype == torch.uint8 else images.dtype)
    mean, std = (
        None if part is None else torch.as_tensor(part, dtype=dtype, device=images.device) for part in (mean, std)
    )
    converted = in_units(images, mean, std, dtype)
    if dtype == torch.float16 and values_readable(converted) and not all_finite(converted):
        raise ValueError("images: expected backgrounds that fit float16 when normalised, got larger ones")
    return converted


def check_images(images: Tensor, *, name: str = "images") -> Tensor:
    """Require backgrounds (N, C, H, W) or (N, C, D, H, W), at least one, uint8 or finite float."""
    if not isinstance(images, Tensor) or not (images.dtype == torch.uint8 or images.is_floating_point()):
        raise TypeError(f"{name}: expected a uint8 or floating point tensor (N, C, H, W), got {describe(images)}")
    if images.ndim not in _RANKS or 0 in images.shape:
        raise ValueError(f"{name}: expected shape (N, C, H, W) with at least one image, got {describe(images)}")
    return images if images.dtype == torch.uint8 else check_finite(images.detach(), name=name)


def check_normalisation(
    mean: Tensor | Sequence[float] | None, std: Tensor | Sequence[float] | None, images: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Mean and std as float32 (C,) on the images' device, or neither."""
    check_both_or_none(mean, std)
    if mean is None or std is None:
        return None, None
    pair = []
    for name, value in (("mean", mean), ("std", std)):
        tensor = torch.as_tensor(value, dtype=torch.float32).flatten()
        if tensor.numel() != images.shape[1]:
            raise ValueError(f"{name}: expected {images.shape[1]} values, one a channel, got {tensor.numel()}")
        pair.append(tensor)
    if values_readable(pair[0]) and values_readable(pair[1]):
        _check_finite_normalisation(pair[0], pair[1], images)
    return pair[0].to(images.device), pair[1].to(images.device)


def _check_finite_normalisation(mean: Tensor, std: Tensor, images: Tensor) -> None:
    """Raise where a normalised pixel would be infinite or no number."""
    if not bool((std > 0).all()):
        raise ValueError(f"std: expected positive values, got {std.tolist()}")
    if not bool((mean.isfinite() & std.isfinite()).all()):
        raise ValueError(f"mean, std: expected finite values, got {mean.tolist()} and {std.tolist()}")
    low, high, dtype = 0.0, 1.0, torch.float32
    if images.is_floating_point() and values_readable(images):
        dtype = images.dtype
        low, high = (float(value) for value in images.aminmax())
    if (max(-low, high) + float(mean.abs().max())) / float(std.min()) > torch.finfo(dtype).max:
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(
            f"mean, std: expected values that keep the bank's normalised pixels within {kind}, got pixels from "
            f"{low:g} to {high:g} with mean {mean.tolist()} and std {std.tolist()}; use a wider dtype"
        )
