"""Swap, backgrounds, kernel, data and CLAD on drawn tensors."""

from __future__ import annotations

from typing import Any

import torch
from any_tensors import Drawn
from promises import promise

from torch_bgdebias import backgrounds, clad, data, masks, ops, swap
from torch_bgdebias.batch import MaskedBatch, collate_masked


def bank_of(t: Drawn, *, labels: bool = True, count: int = 4) -> backgrounds.BackgroundBank:
    size = t.choose((t.size, (3, 2), (9, 8)))
    if t.choose((True, False)):
        images = torch.randint(0, 256, (count, 3, *size), generator=t.generator, dtype=torch.uint8)
    else:
        images = t.floats(count, 3, *size).detach().clone()
    normalised = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)} if t.choose((False, True)) else {}
    given = torch.arange(count) % 3 if labels and t.choose((True, False)) else None
    return backgrounds.BackgroundBank(images, given, **normalised)


@promise("backgrounds.BackgroundBank")
def bank(t: Drawn) -> Any:
    pool = bank_of(t)
    images, labels = pool.sample(t.batch, generator=t.generator)
    return images, labels, pool.subset(torch.tensor([0, 1])).images


@promise("backgrounds.background_bank", words=("image", "picture", "item"))
def bank_of_items(t: Drawn) -> Any:
    pictures = t.floats(t.batch, 3, *t.size, signed=False)
    scaled = t.choose((pictures.detach().clamp(0, 1), pictures, (pictures.detach().clamp(0, 1) * 255).byte()))
    items = [{"image": picture, "label": number} for number, picture in enumerate(scaled)]
    pool = backgrounds.background_bank(items, t.size, label=t.choose(("label", None)))
    return pool.images, pool.sample(2, generator=t.generator)[0]


@promise("backgrounds.uniform_noise")
def noise(t: Drawn) -> Any:
    return backgrounds.uniform_noise(["a"] * t.batch, list(range(t.batch)), t.size)


@promise("backgrounds.screen", words=("images",))
def screened(t: Drawn) -> Any:
    net = t.network(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4)))
    return backgrounds.screen([t.image()], net, 2, cache=False)


@promise("masks.grabcut_masks", "data.grabcut_masks", heavy=True)
def grabcut(t: Drawn) -> Any:
    images = t.floats(t.batch, 3, *t.size, signed=False)
    return masks.grabcut_masks(t.choose((images, (images.detach().clamp(0, 1) * 255).byte())), iterations=1)


@promise("ops.voronoi_composite")
def composite(t: Drawn) -> Any:
    cells, count = t.choose((1, 2, 5)), t.choose((1, 3))
    size = t.choose((t.size, (3, 2), (9, 8)))
    uint8 = torch.randint(0, 256, (count, 3, *size), generator=t.generator, dtype=torch.uint8)
    pool = t.choose((uint8, t.floats(count, 3, *size)))
    return ops.voronoi_composite(
        t.image(), t.mask(), pool,
        torch.rand(t.batch, cells, 2, generator=t.generator, dtype=torch.float32) * torch.tensor(t.size).float(),
        torch.randint(0, count, (t.batch, cells), generator=t.generator),
        torch.randint(0, 9, (t.batch, cells, 2), generator=t.generator),
        **({"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)} if t.choose((False, True)) else {}),
    )  # fmt: skip


def placement_of(t: Drawn) -> swap.Placement:
    return swap.Placement(t.choose((0.0, 1.0)), t.choose(((1.0, 1.0), (0.01, 3.0))), t.choose((0.0, 1.0)))


def params_of(t: Drawn, pool: backgrounds.BackgroundBank | None, label: torch.Tensor | None) -> Any:
    params = swap.sample_swap_params(
        (t.batch, 3, *t.size), label, pool, pattern=t.choose(("paste", "voronoi")), cells=t.choose((1, 4)),
        p=t.choose((1.0, 0.5, 0.0)), different_class=label is not None and t.choose((False, True)),
        generator=t.generator,
    )  # fmt: skip
    if t.choose((False, True)):
        params["placement"] = swap.sample_placement(t.batch, placement_of(t), generator=t.generator)
    return params


@promise("swap.sample_swap_params", "swap.sample_placement")
def drawn_params(t: Drawn) -> Any:
    return params_of(t, t.choose((None, bank_of(t))), t.choose((None, t.labels())))


@promise("swap.swap_background")
def swapped(t: Drawn) -> Any:
    pool = bank_of(t)
    params = params_of(t, pool, t.choose((None, t.labels())))
    return swap.swap_background(t.image(), t.mask(), pool.images, params, edge=t.choose((0.0, 1.5, 1e-3)))


@promise("swap.batch_backgrounds")
def removed(t: Drawn) -> Any:
    return swap.batch_backgrounds(t.image(), t.mask(), t.choose(("tile", "mean")), t.void())


@promise("swap.placed", "swap.place_object")
def moved(t: Drawn) -> Any:
    params = params_of(t, None, None)
    placement = swap.sample_placement(t.batch, placement_of(t), generator=t.generator)
    return swap.placed(t.image(), t.mask(), params), swap.place_object(t.image(), t.mask(), placement)


@promise("swap.BackgroundSwap", words=("bank", "images"))  # the source, where it is one
def swap_module(t: Drawn) -> Any:
    module = swap.BackgroundSwap(
        t.choose(("batch", bank_of(t))), t.choose(("paste", "voronoi")), fill=t.choose(("tile", "mean")),
        edge=t.choose((0.0, 1.5)), placement=t.choose((None, placement_of(t))),
    )  # fmt: skip
    return module(t.image(), t.mask(), t.labels(), void=t.void(), generator=t.generator)


@promise("data.make_variant")
def variant(t: Drawn) -> Any:
    pool = t.choose((None, bank_of(t)))
    normalised = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)} if t.choose((False, True)) else {}
    name = t.choose(data.VARIANTS)
    options: dict[str, Any] = {"backgrounds": pool} if name.startswith("mixed") else {}
    options |= {"void": t.void(), "num_classes": 3, "generator": t.generator}
    return data.make_variant(t.image(), t.mask(), t.labels(), name, **options, **normalised)


@promise("data.to_imagenet9", "data.imagenet9_prediction")
def nine(t: Drawn) -> Any:
    logits = t.floats(t.batch, t.choose((1000, 9)))
    return data.to_imagenet9(logits), data.imagenet9_prediction(logits)


@promise("data.MaskedTensorDataset", "batch.collate_masked")
def tensors(t: Drawn) -> Any:
    dataset = data.MaskedTensorDataset(t.image(), t.labels(), t.mask())
    batch = collate_masked([dataset[number] for number in range(len(dataset))]) if t.batch else None
    return None if not isinstance(batch, MaskedBatch) else (batch.image, batch.mask)


def embeddings(t: Drawn, rows: int | None = None) -> torch.Tensor:
    return t.floats(t.batch if rows is None else rows, 5)


@promise("clad.clad_loss")
def clad_of_negatives(t: Drawn) -> Any:
    negatives = t.floats(t.batch, t.choose((4, 1, 0)), 5)
    valid = t.choose((None, t.flags(*negatives.shape[:2])))
    temperature, reduction = t.choose((0.2, 1e-3, 10.0)), t.choose(("mean", "none"))
    return clad.clad_loss(embeddings(t), embeddings(t), negatives, valid, temperature, reduction=reduction)


@promise("clad.clad_queue_loss")
def clad_of_rows(t: Drawn) -> Any:
    rows = t.floats(3, 4, 5).detach()
    valid = t.flags(t.batch, 4)
    label = t.labels(3, least=-1)
    temperature, reduction = t.choose((0.2, 1e-3, 10.0)), t.choose(("mean", "none"))
    return clad.clad_queue_loss(embeddings(t), embeddings(t), rows, label, valid, temperature, reduction=reduction)


@promise("clad.CLADLoss", "clad.NegativeQueue")
def clad_steps(t: Drawn) -> Any:
    loss = clad.CLADLoss(3, t.choose((None, 5)), num_negatives=4)
    values = [
        loss(embeddings(t), embeddings(t), t.labels(3), t.labels(3, least=-1), t.choose((None, t.labels(3))))
        for _ in range(3)
    ]
    queue = clad.NegativeQueue(3, 2, t.choose((None, 5)))
    queue.enqueue(embeddings(t), t.labels(3, least=-1))
    return values, queue.negatives(t.labels(3, least=-1)), queue.in_order(), dict(loss.state_dict())
