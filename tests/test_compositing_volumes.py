"""Foregrounds taken out of volumes, against a loop over voxels."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from small_volumes import SIZE, volumes

from torch_bgdebias.compositing import (
    bounding_boxes,
    box_mask,
    fills_image,
    mean_fill,
    soft_edge,
    tile_fill,
    without_void,
)

#: first voxel and one past the last of each box; against every side, in the middle, nowhere, everywhere
BOXES = [
    ((1, 2, 3), (3, 5, 9)), ((0, 0, 0), (1, 8, 10)), ((4, 0, 0), (6, 8, 10)), ((0, 3, 0), (6, 8, 10)),
    ((0, 0, 0), (6, 5, 10)), ((0, 0, 1), (6, 8, 10)), ((0, 0, 0), (6, 8, 9)), ((0, 0, 0), (0, 0, 0)),
    ((0, 0, 0), (6, 8, 10)),
]  # fmt: skip


def masks() -> torch.Tensor:
    mask = torch.zeros(len(BOXES), 1, *SIZE)
    for one, (low, high) in zip(mask, BOXES, strict=True):
        one[(0, *map(slice, low, high))] = 1
    mask[-1, 0, 2, 3, 4] = 0  # background inside of the box that is the whole volume
    return mask


def tiled_by_hand(volume: torch.Tensor, mask: torch.Tensor, low: tuple, high: tuple) -> torch.Tensor:
    slabs = []
    for axis in range(3):
        for first, last in ((0, low[axis]), (high[axis], SIZE[axis])):
            start, stop = [0, 0, 0], list(SIZE)
            start[axis], stop[axis] = first, last
            slabs.append((math.prod(b - a for a, b in zip(start, stop, strict=True)), start, stop))
    most, start, stop = max(slabs, key=lambda slab: slab[0])  # the first of equals
    out = volume.clone()
    if most == 0:
        return volume[:, mask[0] == 0].mean(1)[:, None, None, None].expand_as(volume)
    for voxel in product(*map(range, low, high)):
        source = [a + (v - a) % (b - a) for v, a, b in zip(voxel, start, stop, strict=True)]
        out[(slice(None), *voxel)] = volume[(slice(None), *source)]
    return out


@pytest.mark.parametrize("gradient", [False, True])  # two ways: copies of boxes, and one gather
def test_the_largest_slab_is_tiled_over_the_box(gradient):
    volume, mask = volumes(len(BOXES))[0].requires_grad_(gradient), masks()
    filled = tile_fill(volume, mask)
    for one, *given in zip(filled, volume.detach(), mask, *zip(*BOXES, strict=True), strict=True):
        torch.testing.assert_close(one.detach(), tiled_by_hand(*given))
    if gradient:
        filled.sum().backward()
        assert float(volume.grad.sum()) == pytest.approx(float(filled.detach().numel()), rel=1e-5)


def test_boxes_have_three_axes():
    mask = masks()
    boxes = bounding_boxes(mask)
    assert boxes.tolist() == [[*low, *high] for low, high in BOXES]
    assert fills_image(mask).tolist() == [False] * (len(BOXES) - 1) + [True]
    assert torch.equal(box_mask(boxes, SIZE)[:-1], mask[:-1].bool())


def test_means_are_over_the_background():
    volume, mask = volumes(len(BOXES))[0], masks()
    filled = mean_fill(volume, mask)
    inside, outside = mask[0, 0] == 1, mask[0, 0] == 0
    torch.testing.assert_close(filled[0][:, inside], volume[0][:, outside].mean(1, keepdim=True).expand(-1, 36))
    assert torch.equal(filled[0][:, outside], volume[0][:, outside])
    void = torch.zeros_like(mask)
    void[0, 0, 5, 7, 9] = 1
    painted = without_void(volume, mask, void)
    rest = outside & (void[0, 0] == 0)
    torch.testing.assert_close(painted[0, :, 5, 7, 9], volume[0][:, rest].mean(1))


def test_edges_fade_along_every_axis():
    mask = torch.zeros(1, 1, 13, 13, 13)
    mask[..., 3:10, 3:10, 3:10] = 1
    faded = soft_edge(mask, 1.0)[0, 0]
    for order in ((0, 2, 1), (1, 0, 2), (2, 1, 0)):
        torch.testing.assert_close(faded.permute(order), faded)
    assert float(faded[6, 6, 6]) > 0.98
    assert float(faded[3, 6, 6]) < float(faded[4, 6, 6]) < float(faded[5, 6, 6])
    assert float(faded[2, 6, 6]) == 0
    slab = torch.zeros(1, 1, 13, 9, 9)
    slab[:, :, 3:10] = 1  # of which every column is a line, blurred along one axis alone
    line = soft_edge(slab[:, :, :, :, 0], 1.0)
    torch.testing.assert_close(soft_edge(slab, 1.0)[..., 0], line)
    with torch.autocast("cpu", torch.bfloat16):  # the blur is not rounded
        assert torch.equal(soft_edge(slab[:, :, :, :, 0], 1.0), line)
