"""Embeddings of images and of the same images on other backgrounds, from a frozen network."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_finite, check_image, check_label, check_mask, describe
from torch_bgdebias.heads.logistic import Views
from torch_bgdebias.heads.settings import HeadSettings
from torch_bgdebias.models import check_one_device, device_of, eval_mode, tap
from torch_bgdebias.swap.module import BackgroundSwap

__all__ = ["embed_views"]


def embed_views(
    model: nn.Module, loader: Iterable[Any], swap: BackgroundSwap, spec: BatchSpec, layer: str, settings: HeadSettings
) -> Views:
    """What enters ``layer`` for every image as it is and for swaps of it, whole and cropped.

    Args:
        model: in evaluation mode meanwhile, no gradients, given back as it was.
        loader: yields batches with image, label and mask; one pass. With backgrounds out of the batch it has to mix the
            classes (``shuffle=True``).
        swap: draws the other backgrounds.
        spec: where image, label and mask are in a batch.
        layer: name of the layer whose input is the embedding (B, D).
        settings: ``copies``, ``crop_area``, ``group`` and ``seed`` are used.

    Raises:
        ValueError: no image; most images share their batch with their own class alone though backgrounds
            come from the batch; most masks are empty or full.
    """
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(settings.seed)
    batches: list[Tensor] = []  # (V, B, D) each
    labels: list[Tensor] = []
    groups: list[Tensor] = []
    n_alone = objectless = 0  # images whose batch holds their class alone; images that are all object or have none
    with eval_mode(model), torch.no_grad():
        for batch in loader:
            image = check_image(spec.image_of(batch).to(device))
            if len(image) == 0:
                continue
            mask = check_mask(spec.mask_of(batch).to(device), image)
            void = spec.void_of(batch)
            void = None if void is None else void.to(device)
            label = check_label(spec.label_of(batch).to(device), len(image))
            n_alone += len(label) * int(swap.bank is None and len(torch.unique(label)) == 1)
            share = mask.mean((1, 2, 3))
            objectless += int(((share <= 0) | (share >= 1)).sum())
            views = [image]
            for _ in range(settings.copies):
                params = swap.generate_parameters(image.shape, label, p=1.0, device=device, generator=generator)
                views.append(swap(image, mask, label, params=params, void=void)[0])
            if settings.crop_area < 1:
                views = [crop for view in views for crop in (view, random_crop(view, settings.crop_area, generator))]
            batches.append(torch.stack([_embed(model, layer, view) for view in views]))
            labels.append(label)
            if settings.group is not None:
                groups.append(torch.as_tensor(batch[settings.group]).to(device).long())
    if not labels:
        raise ValueError("loader: expected at least one image, got none")
    label = torch.cat(labels)
    _check_batches(len(label), n_alone, objectless)
    number_of = torch.cat(groups) if groups else torch.arange(len(label), device=device)
    return Views(torch.cat(batches, dim=1), label, number_of, originals=1 if settings.crop_area == 1 else 2)


def _check_batches(images: int, n_alone: int, objectless: int) -> None:
    if 2 * n_alone > images:
        raise ValueError(
            "loader: expected batches of several classes, since the other backgrounds come from the batch; got one "
            f"class alone around {n_alone} of {images} images: pass a loader with shuffle=True, or a swap with a "
            "BackgroundBank"
        )
    if 2 * objectless > images:
        raise ValueError(
            f"mask: expected objects with background around them, got {objectless} of {images} masks that are empty or "
            "full, where no background can be exchanged; are they the masks of these images?"
        )


def random_crop(image: Tensor, area: float, generator: torch.Generator) -> Tensor:
    """A crop of each image (B, C, H, W) at its full size: ``area`` to all of the area, aspect 0.82 to 1.22."""
    images = len(image)
    share, aspect, right, down = torch.rand(4, images, device=image.device, generator=generator)
    side = (area + (1 - area) * share).sqrt()
    stretch = ((aspect - 0.5) * 0.4).exp().sqrt()
    width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)
    nothing = torch.zeros_like(width)
    theta = torch.stack(
        [width, nothing, (2 * right - 1) * (1 - width), nothing, height, (2 * down - 1) * (1 - height)], dim=1
    )
    grid = F.affine_grid(theta.view(images, 2, 3).to(image), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _embed(model: nn.Module, layer: str, image: Tensor) -> Tensor:
    check_one_device(model, what="reading embeddings")
    with tap(model, [layer]) as recorded:
        model(image)
    calls = recorded.inputs[layer]
    if len(calls) != 1 or not isinstance(calls[0], Tensor) or calls[0].ndim != 2:
        received = describe(calls[0]) if len(calls) == 1 else f"{len(calls)} calls"
        raise ValueError(f"layer: expected {layer!r} to take one embedding (B, D) in a forward pass, got {received}")
    return check_finite(calls[0].detach().float(), name="embedding")
