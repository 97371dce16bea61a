"""Foregrounds that fade into their background, inwards alone."""

from __future__ import annotations

import math

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.compositing import soft_edge
from torch_bgdebias.swap import BackgroundSwap, sample_swap_params, swap_background


@pytest.fixture
def half():
    """A foreground that fills the right half of 40 x 40."""
    mask = torch.zeros(1, 1, 40, 40)
    mask[..., 20:] = 1
    return mask


def test_the_ramp_is_that_of_a_gaussian_at_a_straight_border(half):
    sigma = 2.5
    soft = soft_edge(half, sigma)[0, 0, 20]
    assert soft[:20].abs().max() == 0  # nothing outside
    for depth in range(1, 8):  # the pixel's centre lies half a pixel less deep
        expected = math.erf((depth - 0.5) / sigma / math.sqrt(2))
        assert soft[19 + depth] == pytest.approx(expected, abs=0.01)
    assert soft[-1] == pytest.approx(1, abs=1e-3)  # cut by the picture's border, it goes on there
    assert (soft.diff() >= 0).all()
    assert torch.equal(soft_edge(half, 0), half)
    assert soft_edge(half.half(), 1.0).dtype == torch.float16


def test_nothing_of_the_old_background_comes_along(half):
    image = torch.where(half.bool(), 0.8, 0.1).expand(1, 3, -1, -1)
    bank = BackgroundBank(torch.full((1, 3, 40, 40), 0.5))
    hard, soft = (BackgroundSwap(bank, edge=edge)(image, mask=half) for edge in (0, 2.0))
    assert torch.equal(soft[..., :20], hard[..., :20])
    assert soft.min() >= 0.5
    assert 0.5 < float(soft[0, 0, 20, 20]) < 0.6
    torch.testing.assert_close(soft[..., 30:], image[..., 30:], atol=2e-3, rtol=0)


def test_images_that_are_not_swapped_stay_as_they_are(half):
    image = torch.rand(6, 3, 40, 40)
    swap = BackgroundSwap(p=0.5, edge=3.0)
    swapped = swap(image, mask=half.expand(6, -1, -1, -1), generator=torch.Generator().manual_seed(1))
    unchanged = ~swap.drawn["apply"]
    assert 0 < unchanged.sum() < 6
    assert torch.equal(swapped[unchanged], image[unchanged])


def test_gradients_and_compilation(half):
    image = torch.rand(2, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    mask = (torch.rand(2, 1, 6, 7, dtype=torch.float64) * 0.5 + 0.5).requires_grad_()
    bank = torch.rand(3, 1, 6, 7, dtype=torch.float64)
    params = sample_swap_params(image.shape, None, BackgroundBank(bank))
    assert torch.autograd.gradcheck(lambda i, m: swap_background(i, m, bank, params, edge=0.3), (image, mask))
    compiled = torch.compile(soft_edge, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(half, 1.5), soft_edge(half, 1.5))


def test_a_bad_edge_is_named():
    for edge in (-1, math.nan, math.inf, "soft", True):
        with pytest.raises(ValueError, match=r"edge: expected a finite number of pixels of at least 0, got"):
            BackgroundSwap(edge=edge)
