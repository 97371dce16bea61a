"""The heatmap loss as functions: the original's arrays, pooling by rank, dilated masks."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.isnet.functional import (
    dilate_mask,
    heatmap_loss,
    rank_pool,
)


def test_rank_pool_is_mean_and_maximum_at_its_ends():
    values = torch.rand(4, 11)
    torch.testing.assert_close(rank_pool(values, 1.0), values.mean(-1))
    torch.testing.assert_close(rank_pool(values, 0.0), values.amax(-1))
    torch.testing.assert_close(rank_pool(values, 0.9999), values.mean(-1), rtol=1e-2, atol=0)
    torch.testing.assert_close(rank_pool(torch.full((3, 7), 2.0), 0.8), torch.full((3,), 2.0))
    with pytest.raises(ValueError, match=r"decay: expected in \[0, 1\]"):
        rank_pool(values, 1.5)


NORMALIZATION = {"absRoIMean": "absolute", "RoIMean": "signed"}


FOREGROUND = {"L2": "l2", "hybrid": "hybrid"}


@pytest.mark.parametrize("index", range(12))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_the_original(vectors, index, dtype):
    arrays = {k.split("/")[1]: v for k, v in vectors("isnet_loss").items() if k.startswith(f"{index}/")}
    relevance = torch.tensor(arrays["heatmap"], dtype=dtype, requires_grad=True)
    loss = heatmap_loss(
        relevance,
        torch.tensor(arrays["mask"], dtype=dtype)[:, :1],
        relevance_range=(float(arrays["cut"]), float(arrays["cut2"])),
        background_weight=float(arrays["A"]),
        foreground_weight=float(arrays["B"]),
        rank_decay=float(arrays["d"]),
        saturation=float(arrays["E"]),
        foreground=FOREGROUND[str(arrays["alternativeForeground"])],
        normalization=NORMALIZATION[str(arrays["norm"])],
    )
    (grad,) = torch.autograd.grad(loss, relevance)
    expected = torch.tensor(arrays["grad"], dtype=dtype)
    assert abs(loss.item() / float(arrays["loss"]) - 1) < 1e-5
    assert (grad - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("d", [0.5, 0.9, 0.99])
def test_leaving_small_weights_out_changes_nothing(d):
    values = torch.rand(2, 3, 5000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 4
    weights = d ** torch.arange(5000, dtype=torch.float64)
    full = (values.sort(-1, descending=True).values * weights).sum(-1) / weights.sum()
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 3e-6)):
        torch.testing.assert_close(rank_pool(values.to(dtype), d).double(), full, rtol=tolerance, atol=0)


def test_dilated_masks():
    mask = torch.zeros(1, 1, 7, 9)
    mask[0, 0, 3, 4] = 1
    assert dilate_mask(mask, 0) is mask
    grown = dilate_mask(mask, 2)
    assert grown.sum() == 25
    assert grown[0, 0, 1:6, 2:7].all()
    with pytest.raises(ValueError, match="pixels: expected a whole number of at least 0"):
        dilate_mask(mask, -1)
