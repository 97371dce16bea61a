"""``make_variant``: the ImageNet-9 variants of any masked data (Noise or Signal, arXiv 2006.09994, table 1).

===============  ==================================  ==========================================
name             foreground                          background
===============  ==================================  ==========================================
``only_fg``      its own                             black
``only_bg_b``    its bounding box is black           its own
``only_bg_t``    its bounding box is tiled over      its own
``no_fg``        its shape is black                  its own
``mixed_same``   its own                             of another image of the same class
``mixed_rand``   its own                             of another image of a random class
``mixed_next``   its own                             of an image of class (label + 1) mod K
===============  ==================================  ==========================================
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.backgrounds.numbering import numbered_as
from torch_bgdebias.backgrounds.pool import BackgroundSource, Pool, as_pool
from torch_bgdebias.backgrounds.units import looks_normalised
from torch_bgdebias.checks import (
    check_both_or_none,
    check_count,
    check_finite,
    check_image,
    check_label,
    check_mask,
    check_option,
)
from torch_bgdebias.compositing import (
    FOREGROUND_THRESHOLD,
    bounding_boxes,
    box_mask,
    fills_image,
    paste,
    tile_fill,
    without_void,
)
from torch_bgdebias.names import VARIANTS

__all__ = ["VARIANTS", "Variant", "VariantSettings", "make_variant"]

#: those that paint something black
_BLACK = ("only_fg", "only_bg_b", "no_fg")
_NO_BLACK = (
    "image: pixels reach far out of [0, 1], as normalised ones do, so that 0 is not black; pass the mean= and std= "
    "that they were normalised with"
)
_BYTES = (
    "image: pixels reach far above 1 and not below 0, as those of 0 to 255 do; divide them by 255, or, where the "
    "network wants them so, pass mean=[0] and std=[1 / 255], which say the same of them"
)


class Variant(NamedTuple):
    """A batch with other backgrounds.

    Attributes:
        image: (B, C, H, W), the dtype and units of the input.
        background_label: (B,) int64, the class that the background came from; -1 where there is none (black) or where
            the pool does not say.
        valid: (B,) bool, False where the variant could not be made: the mask has no foreground, or no background of
            the wanted class is there. ``image`` then is the original and ``background_label`` the sample's own label.
            Leave these samples out of any accuracy.
    """

    image: Tensor
    background_label: Tensor
    valid: Tensor


@dataclasses.dataclass(frozen=True, eq=False)  # tensors have no one answer to ==
class VariantSettings:
    """Options of `make_variant`, which explains them.

    Raises:
        ValueError: an unknown name, a number of classes below 1, or one of ``mean`` and ``std`` without the other.
    """

    name: str
    num_classes: int | None = None
    mean: Sequence[float] | Tensor | None = None
    std: Sequence[float] | Tensor | None = None
    class_names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_option(self.name, VARIANTS, name="name")
        check_both_or_none(self.mean, self.std)
        if self.num_classes is not None:
            check_count(self.num_classes, name="num_classes")
        if isinstance(self.class_names, str):
            raise TypeError(f"class_names: expected names of the classes 0, 1, ..., got {self.class_names!r}")
        if self.class_names and self.num_classes not in (None, len(self.class_names)):
            raise ValueError(f"class_names: expected {self.num_classes}, as num_classes, got {len(self.class_names)}")

    def numbered(self, pool: Pool) -> Pool:
        """The bank with its categories renumbered as the images' classes by name, where the variant needs classes."""
        needed = [self.name] if self.name != "mixed_rand" else []
        return numbered_as(pool, self.class_names or (), needed, option="class_names=", stacklevel=4)

    def known(self, background_label: Tensor) -> Tensor:
        """The same with -1 for categories that are none of the classes."""
        return (
            background_label.masked_fill(background_label >= len(self.class_names), -1)
            if self.class_names
            else background_label
        )

    def units(self, image: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation, (C,) each, in the image's dtype and place.

        Raises:
            ValueError: neither one value nor one a channel.
        """
        if self.mean is None or self.std is None:
            return None
        channels = image.shape[1]
        pair = [torch.as_tensor(x, dtype=image.dtype, device=image.device).flatten() for x in (self.mean, self.std)]
        for key, tensor in zip(("mean", "std"), pair, strict=True):
            if tensor.numel() not in (1, channels):
                raise ValueError(f"{key}: expected 1 or {channels} values, one per channel, got {tensor.numel()}")
        return pair[0].expand(channels), pair[1].expand(channels)


def make_variant(
    image: Tensor,
    mask: Tensor,
    label: Tensor,
    name: str,
    *,
    backgrounds: BackgroundSource | None = None,
    background_labels: Tensor | None = None,
    background_masks: Tensor | None = None,
    exclude: Tensor | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    generator: torch.Generator | None = None,
    void: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> Variant:
    """Make one ImageNet-9 variant of a batch, without loops over samples or host synchronisation.

    The backgrounds of the mixed variants are the batch's own images without their foregrounds, never a sample's own;
    or, with ``backgrounds=``, any pool. The class is chosen first, uniformly, then an image of it.

    Args:
        image: (B, C, H, W) float, or volumes (B, C, D, H, W), and so what follows.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1], 1 = foreground; soft masks blend.
        label: (B,) integer classes.
        name: one of ``VARIANTS``.
        backgrounds: for the mixed variants, what `as_pool` takes: (N, C, Hb, Wb), float in the image's units or uint8,
            which follows ``mean`` and ``std``; or a ``BackgroundBank`` with its own normalisation and lists.
        background_labels: (N,) classes of the pool, -1 unknown. Only ``mixed_rand`` does without them. By default those
            of a bank, by the names of its categories where it has names.
        background_masks: (N, 1, Hb, Wb) masks of foregrounds in the pool, removed by tiling from the chosen images.
        exclude: (B,) int64 position in the pool that a sample must not get (its own image), -1 for none.
        num_classes: K of ``mixed_next``; by default as many as ``class_names``, or the largest label in sight plus one.
        mean: per channel, that the images were normalised with; black is (0 - mean) / std. ``None``: not normalised.
        std: per channel; required with ``mean``.
        generator: on the image's device, for the choice of backgrounds.
        void: (B, 1, H, W) or (B, H, W) of pixels that are neither object nor background: no variant shows them.
        class_names: of the labels 0, 1, ..., so that a bank's categories are the classes of the same names; without
            them a named bank warns that it goes by number.

    Returns:
        ``Variant(image, background_label, valid)``.

    Raises:
        TypeError, ValueError: unknown name, tensors that do not fit, a pool without classes, non-finite images.

    Example:
        >>> image, label, mask = torch.rand(4, 3, 16, 16), torch.tensor([0, 0, 1, 2]), torch.zeros(4, 1, 16, 16)
        >>> mask[:, :, 4:12, 4:12] = 1
        >>> variant = make_variant(image, mask, label, "mixed_same")
        >>> variant.valid.tolist(), variant.background_label.tolist()
        ([True, True, False, False], [0, 0, 1, 2])
    """
    settings = VariantSettings(name, num_classes, mean, std, class_names)
    check_finite(check_image(image, volumes=True), name="image")
    mask = check_mask(mask, image)
    if void is not None:
        void = check_mask(void, image, name="void")
        mask = torch.minimum(mask, 1 - void)
    label = check_label(label, len(image), num_classes=num_classes)
    units = settings.units(image)
    if units is None and name in _BLACK and looks_normalised(image):
        warnings.warn(_NO_BLACK if float(image.detach().amin()) < 0 else _BYTES, stacklevel=2)
    black = torch.zeros_like(image) if units is None else _per_channel(-units[0] / units[1], image)
    valid = (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)
    background_label = label
    if name == "only_fg":
        composed, background_label = paste(image, mask, black), torch.full_like(label, -1)
    elif name == "only_bg_b":
        box = box_mask(bounding_boxes(mask), image.shape[2:])
        composed = torch.where(box, black, without_void(image, mask, void, black))
    elif name == "only_bg_t":
        composed = tile_fill(without_void(image, mask, void), mask)
    elif name == "no_fg":
        composed = paste(black, mask, without_void(image, mask, void, black))
    else:
        if backgrounds is not None:
            mean, std = (None, None) if units is None else units
            pool = as_pool(backgrounds, labels=background_labels, masks=background_masks, mean=mean, std=std)
            pool = settings.numbered(pool)
        elif background_labels is None and background_masks is None and exclude is None:
            pool = Pool(without_void(image, mask, void), label, masks=mask, usable=~fills_image(mask), own=True)
            exclude = torch.arange(len(image), device=image.device)
        else:
            raise ValueError("backgrounds: expected with background_labels, background_masks or exclude, got None")
        exclude = _check_choice(pool, exclude, image, name)
        unknown = torch.full((len(pool),), -1, device=label.device)
        labels = unknown if pool.labels is None else pool.labels.to(label.device)
        index, exists = _choose(label, labels, pool, exclude, settings, generator)
        composed = paste(image, mask, pool.take(index, image)) if len(pool) else image
        background_label, valid = settings.known(labels[index]) if len(pool) else label, valid & exists
    picture = torch.where(valid.view(-1, *[1] * (image.ndim - 1)), composed, image)
    return Variant(picture, torch.where(valid, background_label, label), valid)


def _per_channel(values: Tensor, image: Tensor) -> Tensor:
    """Numbers (C,) as images of flat colours."""
    return values.view(-1, *[1] * (image.ndim - 2)).expand_as(image)


def _check_choice(pool: Pool, exclude: Tensor | None, image: Tensor, name: str) -> Tensor | None:
    """Require the labels that a variant needs; the place in the pool that each image must not get."""
    if pool.labels is None and name != "mixed_rand":
        raise ValueError(f"background_labels: {name} needs the class of every background, got None")
    return None if exclude is None else check_label(exclude, len(image), name="exclude").to(image.device)


def _choose(
    label: Tensor,
    labels: Tensor,
    pool: Pool,
    exclude: Tensor | None,
    settings: VariantSettings,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Position in the pool (B,) and whether there is one (B,): uniform over classes, then over a class's images."""
    batch, count = len(label), len(labels)
    if count == 0 or batch == 0:
        return torch.zeros_like(label), torch.zeros_like(label, dtype=torch.bool)
    available = torch.ones(batch, count, dtype=torch.bool, device=label.device)
    if pool.usable is not None:
        available = available & pool.usable.to(label.device)
    if exclude is not None:
        available = available & (torch.arange(count, device=label.device) != exclude[:, None])
    permitted = pool.allowed(label)
    if permitted is not None:
        available = available & permitted
    allowed = available
    if settings.name == "mixed_same":
        allowed = available & (labels == label[:, None])
    elif settings.name == "mixed_next":
        num_classes = settings.num_classes or len(settings.class_names or ())
        following = (label + 1) % (num_classes or torch.maximum(label.amax(), labels.amax()) + 1)
        allowed = available & (labels == following[:, None])
    # Gumbel's trick: the largest key is a draw in proportion to the weights, here one over the size of an image's class
    noise = torch.rand(batch, count, generator=generator, device=label.device).clamp_(1e-30, 1 - 1e-7)
    keys = -torch.log(-torch.log(noise)) - torch.log(_class_sizes(labels, available).clamp(min=1).float())
    keys = torch.where(allowed, keys, -torch.inf)
    return keys.argmax(1), allowed.any(1)


def _class_sizes(labels: Tensor, available: Tensor) -> Tensor:
    """The number of available images of each image's class, (B, N)."""
    group = torch.searchsorted(labels.sort().values, labels.contiguous())  # one number a class, without a host read
    counts = torch.zeros_like(available, dtype=torch.int64).scatter_add_(
        1, group.expand_as(available), available.long()
    )
    return counts.gather(1, group.expand_as(available))
