from __future__ import annotations

import hostile
import numpy as np
import pytest
import torch

from torch_bgdebias.compositing import bounding_boxes, box_mask, mean_fill, object_share, paste, soft_edge, tile_fill


def slow_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.nonzero(mask > 0.05)
    return (0, 0, 0, 0) if len(ys) == 0 else (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)


def slow_tile_fill(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Cut the strips out with slices, tile the largest with np.tile so that it lies on itself, cut the box out."""
    _, height, width = image.shape
    top, left, bottom, right = slow_box(mask)
    if bottom == 0:
        return image
    corners = [(0, 0, top, width), (bottom, 0, height, width), (0, 0, height, left), (0, right, height, width)]
    y0, x0, y1, x1 = max(corners, key=lambda c: (c[2] - c[0]) * (c[3] - c[1]))
    if (y1 - y0) * (x1 - x0) == 0:
        outside = mask <= 0.05
        pixels = image[:, outside] if outside.any() else image.reshape(len(image), -1)
        return np.broadcast_to(pixels.mean(1)[:, None, None], image.shape)
    tiles = np.tile(image[:, y0:y1, x0:x1], (1, 2 * (height // (y1 - y0) + 2), 2 * (width // (x1 - x0) + 2)))
    start_y = -y0 % (y1 - y0)
    start_x = -x0 % (x1 - x0)
    plane = tiles[:, start_y : start_y + height, start_x : start_x + width]
    out = image.copy()
    out[:, top:bottom, left:right] = plane[:, top:bottom, left:right]
    return out


def random_masks(generator: torch.Generator, batch: int, height: int, width: int) -> torch.Tensor:
    mask = torch.zeros(batch, 1, height, width)
    for i in range(batch):
        y0, y1 = sorted(torch.randint(0, height + 1, (2,), generator=generator).tolist())
        x0, x1 = sorted(torch.randint(0, width + 1, (2,), generator=generator).tolist())
        mask[i, 0, y0:y1, x0:x1] = torch.rand(y1 - y0, x1 - x0, generator=generator)
    return mask


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (16, 9), (32, 32)])
def test_boxes_and_tile_fill_match_a_slow_loop(device, generator, size):
    image = torch.rand(40, 3, *size, generator=generator)
    mask = random_masks(generator, 40, *size)
    mask[0] = 0
    mask[1] = 1
    boxes = bounding_boxes(mask.to(device)).cpu()
    filled = tile_fill(image.to(device), mask.to(device)).cpu()
    gathered = tile_fill(image.to(device).clone().requires_grad_(), mask.to(device)).detach().cpu()
    torch.testing.assert_close(gathered, filled, rtol=1e-6, atol=0)
    for i in range(40):
        assert tuple(boxes[i].tolist()) == slow_box(mask[i, 0].numpy())
        np.testing.assert_allclose(filled[i].numpy(), slow_tile_fill(image[i].numpy(), mask[i, 0].numpy()), rtol=1e-6)


def test_tile_fill_leaves_no_foreground_and_keeps_the_rest(generator):
    image = torch.rand(2, 3, 20, 30, generator=generator)
    mask = torch.zeros(2, 1, 20, 30)
    mask[0, :, 3:9, 4:12] = 1
    mask[1, :, 12:20, 0:30] = 1
    marked = torch.where(mask > 0, torch.full_like(image, 9.0), image)
    filled = tile_fill(marked, mask)
    assert filled.max() <= 1
    box = box_mask(bounding_boxes(mask), (20, 30)).expand_as(image)
    assert torch.equal(filled[~box], image[~box])


def test_fills_without_a_strip_are_the_mean_colour():
    image = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 1, 4, 4)
    mask = torch.ones(2, 1, 4, 4)
    mask[0, 0, 1, 1] = 0  # one background pixel inside a box that is the whole image
    filled = tile_fill(image, mask)
    assert torch.equal(filled[0], torch.full((1, 4, 4), 5.0))
    assert torch.equal(filled[1], torch.full((1, 4, 4), float(image[1].mean())))
    assert torch.equal(mean_fill(image, mask), filled)


def test_mean_fill_matches_its_definition(generator):
    image = torch.rand(1, 3, 8, 8, generator=generator)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2, 2] = mask[..., 4, 5] = 0.7
    filled = mean_fill(image, mask)
    outside = mask[0, 0] == 0
    expected = image[0][:, outside].mean(1)
    torch.testing.assert_close(filled[0, :, 2:5, 2:6], expected[:, None, None].expand(3, 3, 4))
    assert torch.equal(filled[0, :, :2], image[0, :, :2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_and_bool_masks(generator, dtype):
    image = torch.rand(3, 2, 6, 6, generator=generator).to(dtype)
    mask = torch.zeros(3, 6, 6, dtype=torch.bool)
    mask[:, 2:4, 1:5] = True
    assert tile_fill(image, mask).dtype == mean_fill(image, mask).dtype == paste(image, mask, image).dtype == dtype
    assert torch.equal(tile_fill(image, mask), tile_fill(image, mask.to(dtype)[:, None]))


def test_gradients(generator):
    image = torch.rand(2, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    other = torch.rand(2, 2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 1, 4, 5, generator=generator, dtype=torch.float64) * 0.8 + 0.1
    hard = torch.zeros(2, 1, 4, 5)
    hard[0, :, 1:3, 2:4] = 1
    hard[1] = 1
    assert torch.autograd.gradcheck(lambda i: tile_fill(i, hard), (image,))
    assert torch.autograd.gradcheck(lambda i: mean_fill(i, hard), (image,))
    assert torch.autograd.gradcheck(lambda i, m, o: paste(i, m, o), (image, mask.requires_grad_(), other))


def test_paste_is_a_blend_and_reaches_both_ends(generator):
    image, other = torch.rand(2, 3, 4, 4, generator=generator).chunk(2)
    assert torch.equal(paste(image, torch.ones(1, 1, 4, 4), other), image)
    assert torch.equal(paste(image, torch.zeros(1, 1, 4, 4), other), other)
    torch.testing.assert_close(paste(image, torch.full((1, 1, 4, 4), 0.5), other), (image + other) / 2)


def test_tile_fill_compiles_without_graph_breaks(generator):
    image = torch.rand(2, 3, 8, 8, generator=generator)
    mask = torch.zeros(2, 1, 8, 8)
    mask[:, :, 2:4, 3:7] = 1
    compiled = torch.compile(tile_fill, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(image, mask), tile_fill(image, mask))


def test_empty_batch():
    image, mask = torch.rand(0, 3, 4, 4), torch.rand(0, 1, 4, 4)
    assert (
        tile_fill(image, mask).shape == mean_fill(image, mask).shape == paste(image, mask, image).shape == (0, 3, 4, 4)
    )
    assert bounding_boxes(mask).shape == (0, 4)


def test_bad_input_is_named():
    image = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 1, 4, 4\)"):
        tile_fill(image, torch.ones(2, 1, 5, 4))
    with pytest.raises(TypeError, match="mask > 127"):
        mean_fill(image, torch.ones(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"mask: expected values in \[0, 1\], got \[0, 2\]"):
        bounding_boxes(torch.tensor([[[0.0, 2.0]]]))
    with pytest.raises(ValueError, match=r"background: expected shape \(2, 3, 4, 4\)"):
        paste(image, torch.ones(2, 1, 4, 4), torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("fill", [tile_fill, mean_fill])
@hostile.wrong(image=hostile.IMAGES, mask=hostile.MASKS, but=["image: NaN", "image: infinite"])
def test_wrong_images_and_masks_are_named(wrong, fill):
    wrong.refused_by(fill, image=torch.rand(2, 3, 6, 7), mask=torch.zeros(2, 1, 6, 7))


def test_volumes_are_pasted_slice_by_slice():
    g = torch.Generator().manual_seed(0)
    front, behind = (torch.rand(2, 3, 4, 5, 6, generator=g, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, 1, 4, 5, 6, generator=g, dtype=torch.float64)
    expected = torch.stack([paste(front[:, :, d], mask[:, :, d], behind[:, :, d]) for d in range(4)], 2)
    assert torch.equal(paste(front, mask, behind), expected)
    small = [x[:1, :, :2, :2, :2].clone().requires_grad_() for x in (front, mask, behind)]
    assert torch.autograd.gradcheck(paste, tuple(small))
    assert torch.equal(paste(front, mask[:, 0], behind), expected)
    with pytest.raises(ValueError, match=r"mask: expected shape \(2, 1, 4, 5, 6\) to go with the image"):
        paste(front, mask[:, :, 0], behind)
    with pytest.raises(ValueError, match=r"background: expected shape \(2, 3, 4, 5, 6\)"):
        paste(front, mask, behind[:, :, 0])


def test_a_mask_at_the_threshold_is_background(generator):
    image = torch.rand(2, 3, 6, 7, generator=generator)
    mask = torch.zeros(2, 1, 6, 7)
    mask[:, :, 2:4, 3:5] = 0.5
    for fill in (mean_fill, tile_fill):
        assert torch.equal(fill(image, mask, threshold=0.5), image)
        assert not torch.equal(fill(image, mask, threshold=0.49), image)


def test_an_edge_fades_within_three_sigma_and_no_further():
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 20:] = 1
    faded = soft_edge(mask, 2.0)[0, 0, 20]
    assert faded[20:26].max() < 1
    assert (faded[26:] == 1).all()


def test_an_object_is_where_its_mask_is_above_one_half():
    mask = torch.tensor([[0.0, 0.5, 0.51, 0.9], [1.0, 0.49, 0.75, 0.2]]).reshape(1, 1, 2, 4)
    assert object_share(mask).item() == 4 / 8
    void = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]).reshape(1, 1, 2, 4)
    assert object_share(mask, void).item() == 3 / 6
    assert object_share(torch.stack([torch.zeros(2, 4), torch.ones(2, 4)])[:, None]).tolist() == [0, 1]
