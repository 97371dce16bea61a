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

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_bgdebias.checks import check_finite, check_image, check_label, check_mask, check_option, describe
from torch_bgdebias.compositing import FOREGROUND_THRESHOLD, bounding_boxes, box_mask, paste, tile_fill

__all__ = ["VARIANTS", "Variant", "make_variant"]

#: names of the variants, in the order of the paper's table
VARIANTS = ("only_fg", "only_bg_b", "only_bg_t", "no_fg", "mixed_same", "mixed_rand", "mixed_next")


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


class _Pool(NamedTuple):
    """Backgrounds to choose from: images (N, C, Hb, Wb), classes (N,), and masks of foregrounds still to remove."""

    images: Tensor
    labels: Tensor
    masks: Tensor | None
    usable: Tensor | None
    exclude: Tensor | None
    mean: Tensor | None = None
    std: Tensor | None = None


def make_variant(
    image: Tensor,
    mask: Tensor,
    label: Tensor,
    name: str,
    *,
    backgrounds: Tensor | Any | None = None,
    background_labels: Tensor | None = None,
    background_masks: Tensor | None = None,
    exclude: Tensor | None = None,
    num_classes: int | None = None,
    mean: Sequence[float] | Tensor | None = None,
    std: Sequence[float] | Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Variant:
    """Make one ImageNet-9 variant of a batch. No loops over samples, no host synchronisation.

    The backgrounds of the mixed variants are the batch's own images with their foreground removed by tiling
    (``only_bg_t``), never a sample's own; or, with ``backgrounds=``, any pool. The class is chosen first (uniformly
    over the classes that are there, for ``mixed_rand`` the sample's own among them, as in the paper), then an image of
    it uniformly. Images whose foreground's box is the whole image have no background to give and are not chosen.

    Args:
        image: (B, C, H, W) float.
        mask: (B, 1, H, W) or (B, H, W), bool or float in [0, 1], 1 = foreground; soft masks blend.
        label: (B,) integer classes.
        name: one of ``VARIANTS``.
        backgrounds: pool (N, C, Hb, Wb) for the mixed variants, without foregrounds unless ``background_masks`` comes
            with it: float in the image's units, or uint8, which is scaled to [0, 1] and normalised with ``mean`` and
            ``std``; or a ``BackgroundBank`` (any object with ``.images`` and ``.labels``), whose own ``mean`` and
            ``std`` come first. Other sizes are resized to the image's.
        background_labels: (N,) classes of the pool, -1 unknown. Only ``mixed_rand`` does without them (it then draws
            uniformly over the images).
        background_masks: (N, 1, Hb, Wb) masks of foregrounds in the pool, removed by tiling from the chosen images.
        exclude: (B,) int64 position in the pool that a sample must not get (its own image), -1 for none.
        num_classes: K of ``mixed_next``; by default the largest label in sight plus one, which is wrong where the last
            class is absent.
        mean: per channel, that the images were normalised with; black is (0 - mean) / std. ``None``: not normalised.
        std: per channel, goes with ``mean``.
        generator: on the image's device, for the choice of backgrounds.

    Returns:
        ``Variant(image, background_label, valid)``.

    Raises:
        TypeError, ValueError: unknown name, tensors that do not fit together, a pool without classes where they are
            needed, non-finite images.

    Example:
        >>> import torch
        >>> image, label = torch.rand(4, 3, 16, 16), torch.tensor([0, 0, 1, 2])
        >>> mask = torch.zeros(4, 1, 16, 16)
        >>> mask[:, :, 4:12, 4:12] = 1
        >>> made = make_variant(image, mask, label, "mixed_same")
        >>> made.valid.tolist(), made.background_label.tolist()
        ([True, True, False, False], [0, 0, 1, 2])
    """
    check_option(name, VARIANTS, name="name")
    check_finite(check_image(image), name="image")
    mask = check_mask(mask, image)
    label = check_label(label, len(image), num_classes=num_classes)
    scale, shift = _normalisation(image, mean, std)
    black = shift.expand_as(image)
    valid = (mask > FOREGROUND_THRESHOLD).flatten(1).any(1)
    background_label = label
    if name == "only_fg":
        made, background_label = paste(image, mask, black), torch.full_like(label, -1)
    elif name == "only_bg_b":
        made = torch.where(box_mask(bounding_boxes(mask), (image.shape[2], image.shape[3])), black, image)
    elif name == "only_bg_t":
        made = tile_fill(image, mask)
    elif name == "no_fg":
        made = paste(black, mask, image)
    else:
        pool = _pool(image, mask, label, name, backgrounds, background_labels, background_masks, exclude)
        index, found = _choose(label, pool, name, num_classes, generator)
        made = paste(image, mask, _taken(image, pool, index, scale, shift))
        background_label, valid = pool.labels[index] if len(pool.labels) else label, valid & found
    return Variant(
        torch.where(valid[:, None, None, None], made, image), torch.where(valid, background_label, label), valid
    )


def _normalisation(image: Tensor, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift (1, C, 1, 1) from [0, 1] to the image's units; the shift alone is black."""
    if (mean is None) != (std is None):
        given = "mean" if std is None else "std"
        raise ValueError(f"mean, std: expected both or none, got only {given}")
    if mean is None:
        one = image.new_ones(1, image.shape[1], 1, 1)
        return one, torch.zeros_like(one)
    values = []
    for key, value in (("mean", mean), ("std", std)):
        tensor = torch.as_tensor(value, dtype=image.dtype, device=image.device)
        if tensor.numel() not in (1, image.shape[1]):
            raise ValueError(f"{key}: expected 1 or {image.shape[1]} values, one per channel, got {tensor.numel()}")
        values.append(tensor.reshape(1, -1, 1, 1).expand(1, image.shape[1], 1, 1))
    return 1 / values[1], -values[0] / values[1]


def _pool(
    image: Tensor,
    mask: Tensor,
    label: Tensor,
    name: str,
    backgrounds: Any,
    labels: Tensor | None,
    masks: Tensor | None,
    exclude: Tensor | None,
) -> _Pool:
    if backgrounds is None:
        if not (labels is None and masks is None and exclude is None):
            raise ValueError("backgrounds: expected with background_labels, background_masks or exclude, got None")
        own = torch.arange(len(image), device=image.device)
        return _Pool(image, label, mask, _has_background(mask), own)
    mean = std = None
    if not isinstance(backgrounds, Tensor) and hasattr(backgrounds, "images"):
        labels = backgrounds.labels if labels is None else labels
        mean, std = getattr(backgrounds, "mean", None), getattr(backgrounds, "std", None)
        backgrounds = backgrounds.images
    if not isinstance(backgrounds, Tensor) or not (backgrounds.dtype == torch.uint8 or backgrounds.is_floating_point()):
        raise TypeError(f"backgrounds: expected a float or uint8 tensor (N, C, H, W), got {describe(backgrounds)}")
    if backgrounds.ndim != 4 or backgrounds.shape[1] != image.shape[1]:
        raise ValueError(f"backgrounds: expected shape (N, {image.shape[1]}, H, W), got {describe(backgrounds)}")
    if labels is None:
        if name != "mixed_rand":
            raise ValueError(f"background_labels: {name} needs the class of every background, got None")
        labels = torch.full((len(backgrounds),), -1, device=image.device)
    labels = check_label(labels, len(backgrounds), name="background_labels").to(image.device)
    usable = None
    if masks is not None:
        shape = (len(backgrounds), 1, *backgrounds.shape[2:])
        masks = check_mask(masks, name="background_masks")
        if masks.shape != shape:
            raise ValueError(f"background_masks: expected shape {shape}, got {tuple(masks.shape)}")
        usable = _has_background(masks).to(image.device)
    if exclude is not None:
        exclude = check_label(exclude, len(image), name="exclude").to(image.device)
    return _Pool(backgrounds, labels, masks, usable, exclude, mean, std)


def _has_background(mask: Tensor) -> Tensor:
    """(N,) bool: the foreground's box leaves something of the image."""
    top, left, bottom, right = bounding_boxes(mask).unbind(1)
    return (bottom - top) * (right - left) < mask.shape[2] * mask.shape[3]


def _choose(
    label: Tensor, pool: _Pool, name: str, num_classes: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Position in the pool (B,) and whether there is one (B,): uniform over classes, then over a class's images."""
    batch, count = len(label), len(pool.labels)
    if count == 0 or batch == 0:
        return torch.zeros_like(label), torch.zeros_like(label, dtype=torch.bool)
    allowed = torch.ones(batch, count, dtype=torch.bool, device=label.device)
    if name == "mixed_same":
        allowed = pool.labels == label[:, None]
    elif name == "mixed_next":
        largest = torch.maximum(label.amax(), pool.labels.amax()) + 1
        following = (label + 1) % (largest if num_classes is None else num_classes)
        allowed = pool.labels == following[:, None]
    if pool.usable is not None:
        allowed = allowed & pool.usable
    if pool.exclude is not None:
        allowed = allowed & (torch.arange(count, device=label.device) != pool.exclude[:, None])
    # Gumbel's trick: the largest key is a draw in proportion to the weights, here one over the size of an image's class
    noise = torch.rand(batch, count, generator=generator, device=label.device).clamp_(1e-30, 1 - 1e-7)
    keys = -torch.log(-torch.log(noise)) - torch.log(_class_sizes(pool).clamp(min=1).float())
    keys = torch.where(allowed, keys, -torch.inf)
    return keys.argmax(1), allowed.any(1)


def _class_sizes(pool: _Pool) -> Tensor:
    """How many images of the class of image n a sample may get, (N,) or (B, N) where samples exclude one."""
    labels = pool.labels if pool.usable is None else torch.where(pool.usable, pool.labels, -2)
    ordered = labels.sort().values
    sizes = torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
    if pool.exclude is None:
        return sizes
    excluded = torch.where(pool.exclude >= 0, labels[pool.exclude.clamp(min=0)], -3)
    return sizes - (labels == excluded[:, None]).long()


def _taken(image: Tensor, pool: _Pool, index: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The chosen backgrounds in the image's size, dtype and units, their foregrounds removed."""
    if len(pool.images) == 0:
        return image
    place = index.to(pool.images.device)
    chosen = pool.images[place].to(image.device)
    raw = chosen.dtype == torch.uint8
    chosen = chosen.to(image.dtype) / 255 if raw else chosen.to(image.dtype)
    if pool.mean is not None and pool.std is not None:
        scale, shift = _normalisation(image, pool.mean, pool.std)
        raw = True
    if raw:
        chosen = chosen * scale + shift
    if pool.masks is not None:
        chosen = tile_fill(chosen, pool.masks[index.to(pool.masks.device)].to(image.device))
    if chosen.shape[2:] != image.shape[2:]:
        chosen = torch.nn.functional.interpolate(chosen, image.shape[2:], mode="bilinear", antialias=True)
    return chosen
