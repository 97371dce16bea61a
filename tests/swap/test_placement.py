"""Objects moved, rescaled and mirrored on their new backgrounds."""

from __future__ import annotations

import re
from functools import partial

import pytest
import small_training
import torch
from small_training import Module, loader, tensors
from torch.autograd import gradcheck

from torch_bgdebias.callbacks import BackgroundSwapCallback
from torch_bgdebias.compositing import bounding_boxes
from torch_bgdebias.swap import (
    BackgroundSwap,
    Placement,
    batch_backgrounds,
    place_object,
    placed,
    sample_placement,
    sample_swap_params,
    swap_background,
)

fit = partial(small_training.fit, max_epochs=1)


def square(top: int = 2, left: int = 4, side: int = 6, size: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose pixels count upwards, and the mask of a square."""
    image = torch.arange(float(size * size)).view(1, 1, size, size)
    mask = torch.zeros(1, 1, size, size)
    mask[:, :, top : top + side, left : left + side] = 1
    return image, mask


@pytest.mark.parametrize(
    ("placement", "box"),
    [
        ([1.0, 0.0, 0.0, 1.0], [2, 4, 8, 10]),  # as it is
        ([1.0, 1.0, 1.0, 1.0], [14, 14, 20, 20]),  # the far corner
        ([1.0, -1.0, -1.0, 1.0], [0, 0, 6, 6]),
        ([1.0, 0.5, 0.0, 1.0], [8, 4, 14, 10]),  # half of the 12 free pixels
        ([0.5, 0.0, 0.0, 1.0], [3, 5, 7, 9]),  # 3 pixels wide, but bilinear at half a pixel: 4 are touched
        ([9.0, 1.0, 1.0, 1.0], [0, 0, 20, 20]),  # too large: in the middle, cut at all sides
    ],
)
def test_boxes_go_where_they_are_sent(placement, box):
    moved = place_object(*square(), torch.tensor([placement]))[1]
    assert bounding_boxes(moved).tolist() == [box]


def test_pixels_go_with_their_mask():
    image, mask = square()
    moved, moved_mask = place_object(image, mask, torch.tensor([[1.0, 1.0, -1.0, 1.0]]))
    torch.testing.assert_close(moved[moved_mask > 0.99], image[mask > 0.99])  # whole pixels: nothing is interpolated
    mirrored, same_mask = place_object(image, mask, torch.tensor([[1.0, 0.0, 0.0, -1.0]]))
    torch.testing.assert_close(same_mask, mask)  # about the object's own middle
    torch.testing.assert_close(mirrored[..., 2:8, 4:10], image[..., 2:8, 4:10].flip(-1))


@pytest.mark.parametrize(("side", "top", "left"), [(6, 14, 0), (3, 0, 17), (19, 1, 1), (20, 0, 0), (1, 9, 9)])
def test_what_fits_stays_inside(side, top, left, generator):
    image, mask = square(top, left, side)
    draws = sample_placement(200, Placement(1.0, (0.7, 1.0), 0.5), generator=generator)
    moved = place_object(image.expand(200, -1, -1, -1), mask.expand(200, -1, -1, -1), draws)[1]
    areas = moved.sum((1, 2, 3))
    torch.testing.assert_close(areas, side**2 * draws[:, 0] ** 2, rtol=0.1, atol=0.6)  # nothing was cut off


def test_draws_cover_what_was_asked(generator):
    draws = sample_placement(20_000, Placement(0.5, (0.7, 1.3), 0.25), generator=generator)
    factor, down, right, mirror = draws.unbind(1)
    assert factor.min() >= 0.7
    assert factor.max() <= 1.3
    assert abs(factor.mean() - 1.0) < 0.01
    for way in (down, right):
        assert way.min() >= -0.5
        assert way.max() <= 0.5
        assert abs(way.mean()) < 0.01
    assert set(mirror.tolist()) == {-1.0, 1.0}
    assert abs((mirror < 0).float().mean() - 0.25) < 0.01


def test_gradients_of_image_and_mask(generator):
    image = torch.rand(2, 2, 7, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    mask = (0.2 + 0.6 * torch.rand(2, 1, 7, 6, dtype=torch.float64, generator=generator)).requires_grad_()
    placement = torch.tensor([[0.8, 0.3, -0.2, 1.0], [1.1, 0.0, 0.4, -1.0]])
    assert gradcheck(lambda image, mask: place_object(image, mask, placement), (image, mask))


def test_swap_with_placement_equals_its_parts(batch):
    image, mask, label = batch
    swap = BackgroundSwap(p=0.5, placement=Placement(0.5, (0.7, 1.3), 0.5))
    swapped, moved_mask, same_label = swap(image, mask, label)
    params = swap.drawn
    assert 0 < params["apply"].sum() < len(image), "the seed gives both kinds"
    backgrounds = batch_backgrounds(image, mask)
    assert torch.equal(swapped, swap_background(image, mask, backgrounds, params))
    assert torch.equal(moved_mask, placed(image, mask, params)[1])
    assert same_label is label
    keeps = ~params["apply"]
    assert torch.equal(swapped[keeps], image[keeps])
    assert torch.equal(moved_mask[keeps], mask[keeps])
    moved = place_object(image, mask, params["placement"])
    by_hand = moved[1] * moved[0] + (1 - moved[1]) * backgrounds[params["index"][:, 0]]
    torch.testing.assert_close(swapped[~keeps], by_hand[~keeps])
    assert torch.equal(swap(image, mask, params=params)[0], swapped)


def test_without_placement_nothing_is_drawn_for_it(batch):
    image, mask, label = batch
    draws = [
        swap.generate_parameters(image.shape, label, generator=torch.Generator().manual_seed(3))
        for swap in (BackgroundSwap(), BackgroundSwap(placement=Placement(0.5)))
    ]
    assert set(draws[1]) - set(draws[0]) == {"placement"}
    assert all(torch.equal(value, draws[1][name]) for name, value in draws[0].items())
    assert torch.equal(placed(image, mask, draws[0])[0], image)


def test_masks_come_back_as_they_were_given(batch):
    image, mask, label = batch
    swap = BackgroundSwap(placement=Placement(1.0))
    for given in (mask > 0.5, mask[:, 0], mask[:, 0] > 0.5, mask.double()):
        moved = swap(image, given, label, void=torch.zeros_like(mask))[1]
        assert moved.shape == given.shape
        assert moved.dtype == given.dtype
        assert not torch.equal(moved, given)


def test_the_callback_hands_the_moved_mask_on():
    seen = []

    class Recording(Module):
        def training_step(self, batch, batch_idx):
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    fit(Recording(), BackgroundSwapCallback(BackgroundSwap(placement=Placement(1.0))))
    images, _, masks = (torch.cat(values) for values in zip(*seen, strict=True))
    before = tensors()
    assert not torch.equal(masks.float(), before[2].float()), "objects have moved"
    sizes = [(boxes[:, 2:] - boxes[:, :2]).float() for boxes in map(bounding_boxes, (masks, before[2]))]
    assert (sizes[0] - sizes[1]).abs().max() <= 1  # by parts of a pixel: one more is touched
    assert images.shape == before[0].shape
    assert len(loader()) == len(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"move": 1.5}, "move: expected in [0, 1], got 1.5"),
        ({"mirror": -0.1}, "mirror: expected a probability in [0, 1], got -0.1"),
        ({"scale": (1.3, 0.7)}, "scale: expected two positive numbers, the smaller one first, got (1.3, 0.7)"),
        ({"scale": (0.0, 1.0)}, "scale: expected two positive numbers, the smaller one first, got (0.0, 1.0)"),
        ({"scale": 0.7}, "scale: expected two positive numbers such as (0.7, 1.3), got 0.7"),
        ({"scale": (1.0, float("inf"))}, "scale: expected two positive numbers, the smaller one first, got (1.0, inf)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Placement(**options)


def test_bad_parameters(batch):
    image, mask, label = batch
    with pytest.raises(TypeError, match=r"placement: expected a Placement, got .*; pass Placement\(move=0.5\)"):
        BackgroundSwap(placement=0.5)
    params = sample_swap_params(image.shape, label)
    with pytest.raises(ValueError, match=r"params\['placement'\]: expected float \(6, 4\), got"):
        swap_background(image, mask, image, {**params, "placement": torch.ones(6, 3)})
