"""Embeddings of images and of the same images on other backgrounds, from a frozen network, in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torch_bgdebias.batch import BatchSpec
from torch_bgdebias.checks import check_finite, check_image, check_label, check_mask, describe
from torch_bgdebias.heads.logistic import Views
from torch_bgdebias.models import eval_mode, tap
from torch_bgdebias.swap.module import BackgroundSwap

__all__ = ["embed_views"]


def embed_views(
    model: nn.Module,
    loader: Iterable[Any],
    swap: BackgroundSwap,
    *,
    layer: str,
    spec: BatchSpec,
    copies: int,
    group: str | int | None,
    device: torch.device,
    generator: torch.Generator,
) -> Views:
    """What enters ``layer`` for every image as it is and for ``copies`` swaps of it.

    Args:
        model: in evaluation mode meanwhile, no gradients, given back as it was.
        loader: yields batches with image, label and mask; one pass. With backgrounds out of the batch it has to mix the
            classes (``shuffle=True``).
        swap: draws the other backgrounds.
        layer: name of the layer whose input is the embedding (B, D).
        spec: where image, label and mask are in a batch.
        copies: swaps of each image.
        group: where in a batch a whole number names the photograph that an image was made from; ``None``: each image
            is a group of its own.
        device: of the model.
        generator: of the swaps, on ``device``.

    Raises:
        ValueError: no image; most images share their batch with their own class alone though backgrounds
            come from the batch; most masks are empty or full.
    """
    rows: list[list[Tensor]] = [[] for _ in range(1 + copies)]
    labels: list[Tensor] = []
    groups: list[Tensor] = []
    alone = objectless = 0  # images whose batch holds their class alone; images that are all object or have none
    with eval_mode(model), torch.no_grad():
        for batch in loader:
            image = check_image(spec.image_of(batch).to(device))
            mask = check_mask(spec.mask_of(batch).to(device), image)
            label = check_label(spec.label_of(batch).to(device), len(image))
            alone += len(label) * int(swap.bank is None and len(torch.unique(label)) == 1)
            share = mask.mean((1, 2, 3))
            objectless += int(((share <= 0) | (share >= 1)).sum())
            rows[0].append(_embed(model, layer, image))
            for number in range(copies):
                params = swap.generate_parameters(image.shape, label, p=1.0, device=device, generator=generator)
                swapped = swap(image, mask, label, params=params)[0]
                rows[1 + number].append(_embed(model, layer, swapped))
            labels.append(label)
            if group is not None:
                groups.append(torch.as_tensor(batch[group]).to(device).long())
    if not labels:
        raise ValueError("loader: expected at least one batch, got none")
    images = sum(len(part) for part in labels)
    if 2 * alone > images:
        raise ValueError(
            "loader: expected batches of several classes, since the other backgrounds come from the batch; got one "
            f"class alone around {alone} of {images} images: pass a loader with shuffle=True, or a swap with a "
            "BackgroundBank"
        )
    if 2 * objectless > images:
        raise ValueError(
            f"mask: expected objects with background around them, got {objectless} of {images} masks that are empty or "
            "full, where no background can be exchanged; are they the masks of these images?"
        )
    label = torch.cat(labels)
    number_of = torch.cat(groups) if groups else torch.arange(len(label), device=device)
    return Views(torch.stack([torch.cat(view) for view in rows]), label, number_of)


def _embed(model: nn.Module, layer: str, image: Tensor) -> Tensor:
    with tap(model, [layer]) as recorded:
        model(image)
    calls = recorded.inputs[layer]
    if len(calls) != 1 or not isinstance(calls[0], Tensor) or calls[0].ndim != 2:
        what = describe(calls[0]) if len(calls) == 1 else f"{len(calls)} calls"
        raise ValueError(f"layer: expected {layer!r} to take one embedding (B, D) in a forward pass, got {what}")
    return check_finite(calls[0].detach().float(), name="embedding")
