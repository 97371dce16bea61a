"""What drawn scenes are made of: ranges, edges and colours by their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from torch_bgdebias.data._canvas import Canvas, blend


@pytest.fixture
def canvas():
    return Canvas(200, (24, 36), torch.Generator().manual_seed(0))


def test_coordinates_are_those_of_pixel_centres(canvas):
    assert canvas.y.flatten().tolist() == pytest.approx([(i + 0.5) / 24 for i in range(24)])
    assert canvas.x.flatten().tolist() == pytest.approx([(i + 0.5) / 36 for i in range(36)])
    assert canvas.pixel == 1 / 24


def test_a_blend_goes_from_one_to_the_other():
    below, above = torch.tensor(0.2), torch.tensor(0.8)
    assert blend(below, above, torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.2, 0.5, 0.8])


def test_numbers_are_uniform_in_their_range(canvas):
    draws = canvas.uniform(-2, 4, 50)
    assert draws.shape == (200, 50)
    assert canvas.uniform(0, 1).shape == (200, 1, 1, 1)
    assert -2 <= draws.min() < -1.98
    assert 3.98 < draws.max() <= 4
    assert draws.mean().item() == pytest.approx(1, abs=5 * 6 / math.sqrt(12 * 10_000))
    assert canvas.chance(0.3).mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 200))


def test_a_colour_lies_between_two_of_the_palette(canvas):
    palette = ((0.2, 0.4, 0.6), (0.6, 0.4, 0.2))
    colours = canvas.colour(palette, 0.0).flatten(1)
    assert colours.shape == (200, 3)
    share = (colours[:, 0] - 0.2) / 0.4
    assert share.min() >= -1e-6
    assert share.max() <= 1 + 1e-6
    assert 0.15 < share.std() < 0.45, "mixtures, not the two alone"
    torch.testing.assert_close(colours[:, 2], 0.6 - 0.4 * share)
    torch.testing.assert_close(colours[:, 1], torch.full((200,), 0.4))


def test_a_jitter_is_of_the_colour_and_of_its_lightness(canvas):
    jitter = canvas.colour(((0.5, 0.5, 0.5),), 0.1).flatten(1) - 0.5
    assert 0.15 < jitter.abs().max() <= 0.2
    assert 0.05 < jitter.mean(1).std() < 0.1, "all channels together"
    assert 0.03 < (jitter - jitter.mean(1, keepdim=True)).std() < 0.08, "and each by itself"


def test_noise_is_in_range_and_of_the_size_asked_for(canvas):
    for noise in (canvas.noise(3, 4), canvas.clouds(3, 4), canvas.noise(500, 500)):
        assert noise.shape == (200, 1, 24, 36)
        assert noise.min() >= 0
        assert noise.max() <= 1
        assert noise.mean().item() == pytest.approx(0.5, abs=0.03)
    coarse, fine = canvas.noise(2, 2), canvas.noise(12, 12)
    assert coarse.diff(dim=3).abs().mean() < 0.5 * fine.diff(dim=3).abs().mean()


def test_clouds_use_most_of_the_range(canvas):
    """A mean of octaves has less contrast than one: it is stretched by 1.6 about the middle."""
    octaves = Canvas(200, (24, 36), torch.Generator().manual_seed(1))
    total = sum(0.55**i * octaves.noise(3 << i, 4 << i) for i in range(4)) / sum(0.55**i for i in range(4))
    clouds = Canvas(200, (24, 36), torch.Generator().manual_seed(1)).clouds(3, 4)
    torch.testing.assert_close(clouds, ((total - 0.5) * 1.6 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("smooth", [False, True])
def test_a_ridge_is_the_mean_of_its_octaves(smooth):
    def draw(octave, generator):
        coarse = torch.rand(5, 1, 1, (4 << octave) + 1, generator=generator)
        mode = "bicubic" if smooth else "bilinear"
        return torch.nn.functional.interpolate(coarse, (1, 36), mode=mode, align_corners=True)

    generator = torch.Generator().manual_seed(2)
    expected = sum(0.5**i * draw(i, generator) for i in range(3)) / 1.75
    ridge = Canvas(5, (24, 36), torch.Generator().manual_seed(2)).ridge(4, smooth=smooth)
    torch.testing.assert_close(ridge, expected)


def test_edges_are_as_soft_as_asked(canvas):
    line = torch.full((200, 1, 1, 36), 0.5)
    cover = canvas.below(line)[0, 0, :, 0]
    assert cover.tolist() == pytest.approx([0] * 12 + [1] * 12, abs=1e-5)
    soft = canvas.below(line, 4.0)[0, 0, 10:14, 0]
    assert soft.tolist() == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=1e-5)
    distance = torch.tensor([0.0, 0.5, 0.5 + canvas.pixel / 4, 1.0])
    assert canvas.within(distance, 0.5).tolist() == pytest.approx([1, 0.5, 0.25, 0], abs=1e-5)


def test_a_turned_plane_keeps_its_distances(canvas):
    y, x = canvas.rotated(90)
    far = ((y - 0.5) ** 2 + (x - 0.5) ** 2).expand(200, 1, 24, 36)
    torch.testing.assert_close(far, ((canvas.y - 0.5) ** 2 + (canvas.x - 0.5) ** 2).expand_as(far))
    angle = torch.atan2((y - 0.5)[:, 0, 12, 35], (x - 0.5)[:, 0, 12, 35])
    assert angle.min() < -1.2
    assert angle.max() > 1.2
    tilted = canvas.rotated(0, 0.5)[0]
    assert (tilted - canvas.y).abs().max() > 0.05, "seen from the side"
    plain = canvas.rotated(0)
    torch.testing.assert_close(plain[0], canvas.y.expand_as(plain[0]))


def test_a_hash_is_one_number_a_cell(canvas):
    cell = (canvas.x * 6).floor() + 0 * canvas.y
    number = canvas.hashed(cell, (canvas.y * 4).floor())
    assert number.min() >= 0
    assert number.max() < 1
    blocks = number.reshape(200, 4, 6, 6, 6)
    assert torch.equal(blocks.amax((2, 4)), blocks.amin((2, 4)))
    assert number.std().item() == pytest.approx(1 / math.sqrt(12), abs=0.02)
    assert len(set(blocks[0, :, 0, :, 0].flatten().tolist())) > 20, "of 24, in steps of a 512th or so"


def test_light_keeps_a_grey_picture_grey_and_in_range(canvas):
    lit = canvas.light(torch.full((200, 3, 24, 36), 0.5))
    assert lit.min() >= 0
    assert lit.max() <= 1
    assert 0.4 < lit.mean() < 0.56
    means = lit.mean((2, 3))
    assert (means - means.mean(1, keepdim=True)).abs().max() < 0.01
    across = lit[..., :12].mean((1, 2, 3)) - lit[..., 24:].mean((1, 2, 3))
    down = lit[..., :8, :].mean((1, 2, 3)) - lit[..., 16:, :].mean((1, 2, 3))
    assert 0.08 < across.abs().max() < 0.16, "from the left or from the right"
    assert 0.05 < down.abs().max() < 0.11
