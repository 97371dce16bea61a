"""What the head is fitted on: every image and its swaps, whole and cropped."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_bgdebias import BackgroundSwap, BatchSpec
from torch_bgdebias.heads import HeadSettings
from torch_bgdebias.heads.features import embed_views, random_crop


class Pixels(nn.Module):
    """An embedding from which the image can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.fc(image.flatten(1))


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mask = torch.zeros(6, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 3), mask


def views(**options):
    swap = BackgroundSwap("batch", different_class=False)
    return embed_views(Pixels(), [batch()], swap, BatchSpec(), "fc", HeadSettings(**options))


def test_views_are_the_image_its_crop_and_both_of_every_copy():
    image, _, mask = batch()
    seen = views(copies=3, crop_area=0.5)
    assert seen.embedding.shape == (8, 6, 192)
    assert seen.originals == 2
    whole = seen.embedding[::2].view(4, 6, 3, 8, 8)
    assert torch.equal(whole[0], image)
    for swapped in whole[1:]:
        assert torch.equal(swapped * mask, image * mask), "the object stays"
        assert not torch.equal(swapped, image)
    assert not torch.equal(seen.embedding[1], seen.embedding[0])


def test_by_default_there_are_no_crops():
    seen = views(copies=3)
    assert seen.embedding.shape == (4, 6, 192)
    assert seen.originals == 1


def test_a_crop_shows_a_window_of_the_image():
    ramp = torch.linspace(-1, 1, 64)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)]).expand(200, 2, 64, 64)
    crop = random_crop(image, 0.25, torch.Generator().manual_seed(0))
    # the ramps say which window each crop shows
    right, left = crop[:, 0].amax((1, 2)), crop[:, 0].amin((1, 2))
    bottom, top = crop[:, 1].amax((1, 2)), crop[:, 1].amin((1, 2))
    assert crop.shape == image.shape
    assert (crop.abs() <= 1 + 1e-6).all()
    area = (right - left) * (bottom - top) / 4
    assert area.min() > 0.25 * 0.9
    assert area.max() > 0.8
    assert area.min() < 0.35
    centre = (left + right) / 2
    assert centre.min() < -0.3
    assert centre.max() > 0.3


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_masks_without_object_or_without_background_are_refused(level):
    image, label, mask = batch()
    swap = BackgroundSwap("batch", different_class=False)
    mask[:3] = level
    embed_views(Pixels(), [(image, label, mask)], swap, BatchSpec(), "fc", HeadSettings(copies=1))  # half of them
    mask[:4] = level
    with pytest.raises(ValueError, match="got 4 of 6 masks that are empty or full"):
        embed_views(Pixels(), [(image, label, mask)], swap, BatchSpec(), "fc", HeadSettings(copies=1))
