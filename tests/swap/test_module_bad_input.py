"""What is wrong with the arguments of a swap is named."""

from __future__ import annotations

import hostile
import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.swap import BackgroundSwap, sample_swap_params, swap_background

LABEL = torch.tensor([0, 0, 1, 1, 2, 2])


def test_bad_construction_is_named(bank):
    with pytest.raises(ValueError, match="source: expected 'batch' or a BackgroundBank, got 'folder'"):
        BackgroundSwap("folder")
    with pytest.raises(ValueError, match="pattern: expected one of 'paste', 'voronoi', got 'cut'"):
        BackgroundSwap(pattern="cut")
    with pytest.raises(ValueError, match="fill: expected one of 'tile', 'mean', got 'blur'"):
        BackgroundSwap(fill="blur")
    with pytest.raises(ValueError, match="cells: expected a whole number of at least 1, got 0"):
        BackgroundSwap(cells=0)
    with pytest.raises(ValueError, match=r"p: expected a probability in \[0, 1\], got 2"):
        BackgroundSwap(p=2)
    with pytest.raises(ValueError, match="data_keys: expected 'input' among them"):
        BackgroundSwap(data_keys=["mask"])
    with pytest.raises(ValueError, match="different_class: expected one of None, True, False, got 'other'"):
        BackgroundSwap(different_class="other")
    with pytest.raises(TypeError, match="unexpected keyword argument 'probability'"):
        BackgroundSwap(probability=0.5)


@hostile.wrong(image=hostile.IMAGES, mask=hostile.MASKS, label=hostile.LABELS)
def test_wrong_batches_are_named(wrong, batch):
    image, mask, label = batch
    swap = BackgroundSwap()
    wrong.refused_by(lambda image, mask, label: swap(image, mask, label), image=image, mask=mask, label=label)


def test_bad_calls_are_named(batch, bank):
    image, mask, label = batch
    with pytest.raises(ValueError, match=r"label: expected \(B,\) for different_class=True, got None; pass label or"):
        BackgroundSwap(different_class=True)(image, mask)
    swap = BackgroundSwap()
    with pytest.raises(ValueError, match=r"mask: expected \(B, 1, H, W\), got none"):
        swap(image, label=label)
    with pytest.raises(TypeError, match="unexpected keyword argument 'background'"):
        swap(image, mask, label, background=None)
    with pytest.raises(ValueError, match="mask: expected once"):
        swap(image, mask, mask=mask)
    with pytest.raises(ValueError, match="data_keys: expected one for each of 4 inputs"):
        swap(image, mask, label, label)
    with pytest.raises(ValueError, match="source: expected a bank of 1 channels as the image has, got 3"):
        BackgroundSwap(bank)(image[:, :1], mask, label)
    with pytest.raises(ValueError, match="source: expected the bank on the image's device meta, got cpu; call bank.to"):
        BackgroundSwap(bank)(image.to("meta"), mask.to("meta"), label.to("meta"))


def test_bad_params_are_named(batch):
    image, mask, label = batch
    swap = BackgroundSwap()
    params = swap.generate_parameters(image.shape, label)
    with pytest.raises(KeyError, match="params: expected apply, sites, index and offset, got no sites"):
        swap(image, mask, params={k: v for k, v in params.items() if k != "sites"})
    for dtype in (torch.float32, torch.int64):
        with pytest.raises(TypeError, match=r"params\['apply'\]: expected bool \(6,\), got .*pass apply.bool\(\)"):
            swap(image, mask, params={**params, "apply": params["apply"].to(dtype)})
    with pytest.raises(ValueError, match="params: expected them for a batch of 3, got 6"):
        swap(image[:3], mask[:3], params=params)


def test_a_large_half_precision_batch_is_not_taken_for_nan():
    image = torch.full((2, 3, 200, 200), 60.0, dtype=torch.float16)  # its sum overflows
    label = torch.tensor([0, 1])
    assert torch.equal(BackgroundSwap()(image, torch.zeros(2, 1, 200, 200), label)[0], image)


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_backgrounds_that_are_not_finite_or_do_not_fit_are_named(batch, pattern):
    image, mask, label = batch
    bank = torch.rand(5, 3, 13, 17)
    params = sample_swap_params(image.shape, label, BackgroundBank(bank), pattern=pattern)
    for value in (torch.nan, torch.inf, -torch.inf):
        with pytest.raises(
            ValueError, match=r"bank: expected finite values, got NaN or infinity in sample\(s\) \[0, 1"
        ):
            swap_background(image, mask, torch.full_like(bank, value), params)
    huge = torch.full_like(bank, 1e20)
    assert torch.isfinite(swap_background(image, mask, huge, params)).all()
    with pytest.raises(
        ValueError, match="bank: expected backgrounds that fit the foreground's float16, got larger ones"
    ):
        swap_background(image.half(), mask.half(), huge, params)
    largest = torch.full_like(image, 3e38)  # whose mean overflows on the way
    assert torch.isfinite(BackgroundSwap("batch", pattern)(largest, mask=mask)).all()
    with pytest.raises(ValueError, match="bank: expected finite values"):
        BackgroundSwap("batch", pattern, fill="mean")(largest, mask=mask)


def test_an_image_that_is_not_finite_is_the_one_that_is_named(batch):
    image, mask, label = batch
    for fill in ("tile", "mean"):  # its background goes to other images of the batch
        for place in ((2, 0, 0, 0), (2, 0, 5, 6)):
            bad = image.clone()
            bad[place] = torch.nan
            with pytest.raises(
                ValueError, match=r"image: expected finite values, got NaN or infinity in sample\(s\) \[2\]"
            ):
                BackgroundSwap(fill=fill)(bad, mask, label)


def test_a_folder_is_told_how_it_becomes_a_bank():
    with pytest.raises(ValueError, match=r"got 'scenes'; BackgroundBank.from_folder\('scenes', size\) makes one"):
        BackgroundSwap("scenes")
