"""What masks and pictures show by themselves, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from torch_bgdebias.probe.passes.pictures import Twins, edge_fits, object_shares, picture_hashes


def test_shares_by_hand():
    mask = torch.zeros(2, 1, 4, 5)
    mask[0, 0, :2] = 0.75
    mask[1, 0, 1, 2] = 0.04  # fainter than an object's edge
    whole, edge, largest, fit = object_shares(mask).T
    assert np.isnan(fit).all()
    np.testing.assert_allclose(whole, [0.5, 0])
    np.testing.assert_allclose(edge, [(5 + 0 + 2 + 2) / 18, 0])
    np.testing.assert_allclose(largest, [0.75, 0.04], rtol=1e-6)


def test_the_same_picture_has_one_mark_and_two_labels_are_counted():
    image = torch.rand(5, 3, 150, 90, generator=torch.Generator().manual_seed(0))
    image[3], image[4] = image[0], image[1]
    marks = picture_hashes(image)
    assert marks[0] == marks[3] != marks[1] == marks[4] != marks[2]
    assert Twins(marks, np.array([0, 1, 2, 1, 1]), marks).under_two_labels() == 2
    assert Twins(marks, np.array([0, 1, 2, 0, 1]), marks).under_two_labels() == 0
    assert len(set(picture_hashes(torch.rand(3, 1, 4, 5, 6)).tolist())) == 3


def test_two_masks_of_one_picture_and_label_are_counted():
    image = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))[[0, 0, 1, 2, 2]]
    mask = torch.zeros(5, 1, 8, 8)
    mask[:, :, 2:4, 2:4], mask[1, :, 5, 5], mask[4, :, 5, 5] = 1, 1, 1
    label = torch.tensor([0, 0, 0, 1, -1])  # the last two are one picture with two labels
    first, rest = slice(0, 2), slice(2, 5)
    parts = [Twins.of(image[part], label[part], mask[part]) for part in (first, rest)]
    assert Twins.joined(parts).under_two_masks() == 2
    assert Twins.joined(parts).under_two_labels() == 2
    assert Twins.of(image, label, torch.zeros(5, 1, 8, 8)).under_two_masks() == 0
    assert Twins.joined([]).under_two_masks() == 0


def scenes(n, side):
    """Objects of other colours than what is behind them, on smooth backgrounds with noise, and their masks."""
    generator = torch.Generator().manual_seed(0)
    image = 0.3 * torch.rand(n, 3, 1, 1, generator=generator) + 0.1 * torch.rand(n, 3, side, side, generator=generator)
    mask = torch.zeros(n, 1, side, side)
    for one, corner in zip(mask, torch.randint(2, side // 2, (n, 2), generator=generator).tolist(), strict=True):
        one[0, corner[0] : corner[0] + side // 3, corner[1] : corner[1] + side // 3] = 1
        one[0, corner[0] : corner[0] + side // 6, corner[1] : corner[1] + side // 6] = 0  # it is no box
    image = torch.where(mask > 0, image + 0.3, image)
    return image, mask


@pytest.mark.parametrize("side", [30, 64, 200])
def test_edges_fit_those_of_the_own_picture(side):
    image, mask = scenes(24, side)
    fits = edge_fits(image, mask)
    assert fits.isfinite().float().mean() > 0.5
    assert (fits[fits.isfinite()] > 0).float().mean() > 0.9
    in_other_units = edge_fits((image - 0.5) / 0.1, mask)
    torch.testing.assert_close(in_other_units, fits / 0.1, rtol=1e-3, atol=1e-5, equal_nan=True)
    wrong = edge_fits(image, mask.roll(5, 0))
    assert abs(float(wrong.nanmean())) < 0.5 * float(fits.nanmean())


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_outlines_that_hardly_lie_apart_say_nothing(moved):
    """Half of the masks are moved by so much: road signs of one video were told to have those of other pictures."""
    image, mask = scenes(1, 64)
    image, mask = image.repeat(8, 1, 1, 1), mask.repeat(8, 1, 1, 1)
    mask[:4] = mask[:4].roll((moved, moved), (2, 3))
    assert edge_fits(image, mask).isnan().all()
    mask[:4] = mask[:4].roll((5, 5), (2, 3))
    assert edge_fits(image, mask).isfinite().all()


def test_fits_that_are_not_known():
    image, mask = scenes(4, 64)
    assert edge_fits(image, mask[:1].expand(4, -1, -1, -1)).isnan().all()  # the same mask for all
    mask[2] = 0
    assert torch.isnan(edge_fits(image, mask)).tolist() == [
        True,
        False,
        True,
        False,
    ]  # of the third, and of the first, which is compared with its mask
    assert torch.isnan(edge_fits(image[:, :, None], mask[:, :, None])).all()
    np.testing.assert_array_equal(object_shares(mask, image)[:, 3], edge_fits(image, mask).numpy())


def test_fits_of_boxes_around_objects_are_not_known():
    image, mask = scenes(4, 64)
    mask[1] = 0
    mask[1, :, 3:12, 5:20] = 1
    assert torch.isnan(edge_fits(image, mask)).tolist() == [False, True, False, False]
