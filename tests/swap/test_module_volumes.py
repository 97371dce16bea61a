"""Volumes through the swap: the same formula with a depth, and what has none is refused by name."""

from __future__ import annotations

import pytest
import torch
from small_volumes import SIZE, volumes

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.compositing import tile_fill
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.swap import BackgroundSwap, Placement, swap_background


def bank(size: tuple[int, ...] = (7, 9, 6)) -> BackgroundBank:
    images = torch.randint(256, (5, 2, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return BackgroundBank(images, torch.tensor([0, 1, 2, 0, 1]), mean=(0.2, 0.3), std=(0.5, 0.4))


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_backgrounds_are_those_of_the_batch(pattern):
    image, label, mask = volumes()
    swap = BackgroundSwap("batch", pattern)
    swapped, same_mask, same_label = swap(image, mask, label, generator=torch.Generator().manual_seed(0))
    drawn = swap.drawn
    cells = 1 if pattern == "paste" else 8
    assert drawn["sites"].shape == drawn["offset"].shape == (12, cells, 3)
    limits = torch.tensor(SIZE)
    assert bool(((drawn["sites"] >= 0) & (drawn["sites"] <= limits)).all())
    assert bool(((drawn["offset"] >= 0) & (drawn["offset"] < limits)).all())
    places = (drawn["sites"], drawn["index"], drawn["offset"])
    assert torch.equal(swapped, voronoi_composite(image, mask, tile_fill(image, mask), *places))
    assert same_mask is mask
    assert same_label is label
    inside = (mask > 0).expand_as(image)
    assert torch.equal(swapped[inside], image[inside])
    assert float((swapped[~inside] == image[~inside]).float().mean()) < 0.5
    assert torch.equal(swap(image, mask, label, params=drawn)[0], swapped)  # drawn parameters repeat it
    assert torch.equal(swap(image, mask[:, 0], label, params=drawn)[0], swapped)  # masks (B, D, H, W)


def test_a_bank_of_volumes_of_another_size_is_tiled():
    image, label, mask = volumes()
    swap = BackgroundSwap(bank(), "voronoi", cells=3, different_class=True)
    swapped = swap(image, mask, label, generator=torch.Generator().manual_seed(0))[0]
    drawn = swap.drawn
    assert bool((swap.bank.labels[drawn["index"]] != label[:, None]).all())
    given = {name: drawn[name] for name in ("apply", "sites", "index", "offset")}
    again = swap_background(image, mask, bank().images, given, mean=(0.2, 0.3), std=(0.5, 0.4))
    assert torch.equal(swapped, again)
    gradient = torch.autograd.grad(swap_background(image.requires_grad_(), mask, bank().images, given).sum(), image)[0]
    assert torch.equal(gradient, mask.expand_as(image))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda i, m, y: BackgroundSwap(placement=Placement(move=0.5))(i, m, y), "placement: expected images"),
        (lambda i, m, y: BackgroundSwap(bank((9, 6)))(i, m, y), r"bank: expected volumes \(N, C, D, H, W\)"),
        (lambda i, m, y: BackgroundSwap(bank())(i[:, :, 0], m[:, :, 0], y), r"bank: expected images \(N, C, H, W\)"),
        (lambda i, m, y: BackgroundSwap()(i, m[:, :, 0], y), r"mask: expected shape \(12, 1, 6, 8, 10\)"),
        (lambda i, m, y: BackgroundSwap()(i[0, 0], m, y), r"image: expected shape .* or \(B, C, D, H, W\)"),
    ],
)
def test_what_does_not_fit_is_named(call, text):
    image, label, mask = volumes()
    with pytest.raises(ValueError, match=text):
        call(image, mask, label)


def test_classifiers_of_images_do_not_look_at_volumes():
    def answers(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.flatten(1).mean(1), 1 - x.flatten(1).mean(1)], 1)

    assert len(bank().filter(answers, {0: [1]}, top_k=1, class_names=["light", "dark"])) == 5
    with pytest.raises(ValueError, match="images: expected .* resized to"):
        bank().filter(answers, [1], top_k=1, class_names=["light", "dark"], size=8)
