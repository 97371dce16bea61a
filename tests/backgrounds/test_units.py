"""Backgrounds in other units than the images: refused where it is certain, warned of where it may be right."""

from __future__ import annotations

import warnings

import pytest
import torch

from torch_bgdebias import BackgroundBank, BackgroundSwap
from torch_bgdebias.backgrounds.pool import as_pool
from torch_bgdebias.backgrounds.units import doubt_beside_images, looks_normalised
from torch_bgdebias.data import make_variant

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture
def pictures(generator):
    return torch.rand(4, 3, 6, 8, generator=generator)


def variant(pictures, source):
    return make_variant(pictures, torch.eye(6, 8)[None].expand(4, -1, -1), torch.arange(4), "mixed_rand",
                        backgrounds=source)  # fmt: skip


@pytest.mark.parametrize("kind", ["floats to 255", "own normalisation", "normalised floats"])
def test_backgrounds_in_other_units_than_pictures_are_refused(pictures, kind):
    """A bank of 0 to 255 beside pictures in [0, 1] gave figures without a word."""
    source = {
        "floats to 255": pictures * 255,
        "own normalisation": BackgroundBank((pictures * 255).byte(), mean=MEAN, std=STD),
        "normalised floats": (pictures - 0.5) / 0.2,
    }[kind]
    text = "are normalised with a mean and std of their own" if kind == "own normalisation" else "lie in other units"
    with pytest.raises(ValueError, match=rf"backgrounds: they {text} and reach from .* the images' pixels lie in"):
        variant(pictures, source)
    bank = source if isinstance(source, BackgroundBank) else BackgroundBank(source)
    with pytest.warns(UserWarning, match=text):  # a training goes on
        BackgroundSwap(bank)(pictures, mask=torch.zeros(4, 1, 6, 8))


def test_the_same_units_and_what_cannot_be_seen_pass(pictures):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        variant(pictures, pictures)
        variant(pictures, (pictures * 255).byte())
        variant(pictures * 0.3 + 0.2, (pictures - 0.5) / 0.2)  # hardly a range: a flat picture may be normalised
        as_pool(BackgroundBank((pictures * 255).byte(), mean=MEAN, std=STD), mean=[0.5, 0.4, 0.3000001], std=STD)
    assert caught == []


def test_a_bank_of_another_normalisation_is_refused(pictures):
    """A bank's own mean went before the images', whatever these were normalised with."""
    bank = BackgroundBank((pictures * 255).byte(), mean=MEAN, std=STD)
    with pytest.raises(ValueError, match=r"expected the images' mean \(0.5\), got a bank with mean \(0.5, 0.4, 0.3\)"):
        as_pool(bank, mean=[0.5], std=[0.25])
    with pytest.raises(ValueError, match=r"expected the images' std \(0.3, 0.3, 0.3\), got a bank with std"):
        as_pool(bank, mean=MEAN, std=[0.3] * 3)


def test_what_looks_normalised():
    assert looks_normalised(torch.tensor([[[[-0.6, 0.2]]]]))
    assert looks_normalised(torch.tensor([[[[0.0, 1.6]]]]))
    assert not looks_normalised(torch.tensor([[[[-0.4, 1.4]]]]))  # overshoots of a resize
    assert not looks_normalised(torch.zeros(0, 3, 2, 2))


@pytest.mark.parametrize(("ends", "doubted"), [((-0.5, 1.5), False), ((-0.51, 1.0), True), ((0.0, 1.51), True)])
def test_images_within_half_a_range_of_zero_to_one_are_not_called_normalised(ends, doubted):
    image = torch.linspace(*ends, 48).reshape(1, 3, 4, 4)
    bank = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    text = doubt_beside_images(bank, None, None, image, name="bank")
    assert ("as normalised ones do" in text) is doubted
