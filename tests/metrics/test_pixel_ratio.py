"""The pixel ratio against a loop over pixels, its limits, its counting over batches and processes."""

from __future__ import annotations

import os
import pickle

import hostile
import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from torch_bgdebias.metrics import PixelRatio, pixel_ratio

K, N = 4, 19  # class 3 never occurs


def _data(seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    attribution = torch.randn(N, 3, 4, 5, generator=g)
    attribution[2] = 0
    attribution[7] = -attribution[7].abs()
    attribution[11] *= 0
    mask = torch.rand(N, 1, 4, 5, generator=g)
    mask[5] = 0
    target = torch.randint(0, K - 1, (N,), generator=g)
    target[:3] = torch.arange(3)
    return attribution, mask, target, torch.rand(N, generator=g) > 0.2


def _loop(attribution, mask) -> list[float]:
    """Pixel by pixel, in Python numbers."""
    ratios = []
    for a, m in zip(attribution.tolist(), mask.tolist(), strict=True):
        inside = outside = 0.0
        for y in range(len(m[0])):
            for x in range(len(m[0][0])):
                value = sum(channel[y][x] for channel in a)
                if value > 0:
                    inside += value * m[0][y][x]
                    outside += value * (1 - m[0][y][x])
        ratios.append(inside / (inside + outside) if inside + outside else float("nan"))
    return ratios


def test_matches_a_loop_over_pixels() -> None:
    attribution, mask, _, _ = _data()
    expected = _loop(attribution, mask)
    assert np.isnan(expected).sum() == 3
    np.testing.assert_allclose(pixel_ratio(attribution, mask).numpy(), expected, rtol=1e-5, equal_nan=True)
    hard = mask > 0.5
    np.testing.assert_allclose(
        pixel_ratio(attribution, hard[:, 0]).numpy(), _loop(attribution, hard.float()), rtol=1e-5, equal_nan=True
    )


def test_known_limits() -> None:
    mask = torch.zeros(2, 1, 6, 6)
    mask[:, :, 1:4, 2:5] = 1
    even = torch.ones(2, 1, 6, 6)
    assert torch.allclose(pixel_ratio(even, mask), torch.tensor(9 / 36))
    assert torch.allclose(pixel_ratio(even, 0.5 * even), torch.tensor(0.5))
    assert pixel_ratio(mask, mask).tolist() == [1, 1]
    assert pixel_ratio(1 - mask, mask).tolist() == [0, 0]
    assert pixel_ratio(mask - 5 * (1 - mask), mask).tolist() == [1, 1]  # what speaks against the class does not count
    assert pixel_ratio(even, torch.ones_like(mask)).tolist() == [1, 1]
    assert pixel_ratio(even, torch.zeros_like(mask)).tolist() == [0, 0]
    assert torch.isnan(pixel_ratio(torch.zeros(1, 1, 6, 6), mask[:1])).all()
    assert torch.isnan(pixel_ratio(-torch.ones(1, 1, 6, 6), mask[:1])).all()


def test_channels_are_added_up_before_the_positive_part() -> None:
    attribution = torch.tensor([[[[2.0, 1.0]], [[-3.0, 1.0]]]])
    assert pixel_ratio(attribution, torch.tensor([[[[1.0, 0.0]]]])).tolist() == [0]


@pytest.mark.parametrize("scale", [1e-42, 1e-20, 1e37])
def test_scale_does_not_matter(scale: float) -> None:
    attribution, mask, _, _ = _data()
    attribution = attribution.sum(1, keepdim=True).clamp(min=-1, max=1).round()  # survives a scale of subnormals
    ratio = pixel_ratio(attribution * scale, mask)
    torch.testing.assert_close(ratio, pixel_ratio(attribution, mask), equal_nan=True, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(dtype: torch.dtype) -> None:
    attribution, mask, _, _ = _data()
    ratio = pixel_ratio((1000 * attribution).to(dtype), mask.to(dtype))
    assert ratio.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-6 if dtype == torch.float64 else 0.05
    np.testing.assert_allclose(ratio.numpy(), _loop(attribution, mask), atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("average", ["micro", "macro", "none"])
@pytest.mark.parametrize("batch", [1, 8, N])
def test_class_matches_a_loop(average: str, batch: int) -> None:
    attribution, mask, target, valid = _data()
    metric = PixelRatio(K, average, bins=7, keep_values=True)
    for start in range(0, N, batch):
        part = slice(start, start + batch)
        metric.update(attribution[part], mask[part], target[part], valid=valid[part])
    ratios = np.array(_loop(attribution, mask))
    counted = valid.numpy()
    per_class = [ratios[counted & (target.numpy() == c)] for c in range(K)]
    means = np.array([np.nanmean(x) if len(x) else np.nan for x in per_class])
    expected = {"micro": np.nanmean(ratios[counted]), "macro": np.nanmean(means), "none": means}[average]
    np.testing.assert_allclose(metric.compute().numpy(), expected, rtol=1e-5, equal_nan=True)
    missing = np.array([np.isnan(x).sum() for x in per_class])
    histograms = np.stack([np.histogram(x[~np.isnan(x)], bins=7, range=(0, 1))[0] for x in per_class])
    if average == "none":
        assert np.isnan(expected[K - 1])
        np.testing.assert_array_equal(metric.undefined().numpy(), missing)
        np.testing.assert_array_equal(metric.histogram().numpy(), histograms)
    else:
        assert metric.undefined() == missing.sum() > 0
        np.testing.assert_array_equal(metric.histogram().numpy(), histograms.sum(0))
    images = metric.images()
    np.testing.assert_allclose(images.ratio.numpy(), ratios[counted], rtol=1e-5, equal_nan=True)
    assert torch.equal(images.target, target[valid])


def test_ratios_at_the_ends_fall_into_the_end_bins() -> None:
    mask = torch.tensor([[[[1.0, 0.0]]]]).expand(2, -1, -1, -1)
    metric = PixelRatio(bins=5)
    metric.update(torch.stack([mask[0], 1 - mask[0]]), mask)
    assert metric.histogram().tolist() == [1, 0, 0, 0, 1]


def test_nothing_defined_is_nan_with_a_warning() -> None:
    metric = PixelRatio()
    metric.update(torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2))
    with pytest.warns(UserWarning, match="PixelRatio: no valid sample was seen"):
        assert torch.isnan(metric.compute())
    assert metric.undefined() == 3
    assert metric.histogram().sum() == 0


def test_pickle_reset_and_forward() -> None:
    attribution, mask, target, _ = _data()
    metric = PixelRatio(K, keep_values=True)
    batch = metric(attribution, mask, target)
    assert batch == metric.compute()
    copy = pickle.loads(pickle.dumps(metric))
    assert torch.equal(copy.histogram(), metric.histogram())
    metric.reset()
    assert metric.undefined() == 0
    assert len(metric.images().ratio) == 0
    assert PixelRatio.higher_is_better is True


def _process(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    attribution, mask, target, valid = _data()
    share = slice(0, 13) if rank == 0 else slice(13, N)
    metric, idle = (PixelRatio(K, "none", bins=7, keep_values=True) for _ in range(2))
    metric.update(attribution[share], mask[share], target[share], valid=valid[share])
    if rank == 0:
        idle.update(attribution, mask, target)
    result = [metric.compute(), metric.undefined(), metric.histogram(), *metric.images()]
    result += [*idle.images(), metric.total]  # the last: this process's own again after all the synchronising
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_a_single_pass(tmp_path) -> None:
    mp.spawn(_process, args=(30711 + os.getpid() % 1000, str(tmp_path)), nprocs=2, join=True)
    attribution, mask, target, valid = _data()
    single, whole = (PixelRatio(K, "none", bins=7, keep_values=True) for _ in range(2))
    single.update(attribution, mask, target, valid=valid)
    whole.update(attribution, mask, target)
    expected = [single.compute(), single.undefined(), single.histogram(), *single.images(), *whole.images()]
    parts = []
    for rank in (0, 1):
        *results, own = torch.load(tmp_path / f"{rank}.pt")
        for value, wanted in zip(results, expected, strict=True):
            torch.testing.assert_close(value, wanted, equal_nan=True)
        parts.append(own)
    torch.testing.assert_close(parts[0] + parts[1], single.total)


def test_bad_input() -> None:
    attribution, mask, target, _ = _data()
    with pytest.raises(ValueError, match=r"attribution: expected finite values, got NaN or infinity"):
        pixel_ratio(attribution / 0, mask)
    with pytest.raises(ValueError, match=r"mask: expected shape \(19, 1, 4, 5\) to go with the image"):
        pixel_ratio(attribution, mask[:, :, :2])
    with pytest.raises(ValueError, match=r"mask: expected values in \[0, 1\]"):
        pixel_ratio(attribution, 2 * mask)
    with pytest.raises(ValueError, match=r"attribution: expected shape \(B, C, H, W\)"):
        pixel_ratio(attribution[0], mask)
    with pytest.raises(ValueError, match="bins: expected a whole number of at least 1, got 0"):
        PixelRatio(bins=0)
    with pytest.raises(ValueError, match="target: expected the classes"):
        PixelRatio(K).update(attribution, mask)
    with pytest.raises(ValueError, match=r"target: expected classes in \[0, 1\], got \[0, 2\]"):
        PixelRatio(2).update(attribution, mask, target)
    with pytest.raises(RuntimeError, match=r"PixelRatio\(keep_values=True\)"):
        PixelRatio().images()


def test_updates_never_read_the_device() -> None:
    with torch.device("meta"):
        attribution, mask = torch.empty(3, 2, 4, 4), torch.empty(3, 1, 4, 4)
        target, valid = torch.empty(3, dtype=torch.int64), torch.empty(3, dtype=torch.bool)
    metric = PixelRatio(K, keep_values=True, sync_on_compute=False).to("meta")
    metric.update(attribution, mask, target, valid=valid)
    assert metric.bin_counts.device.type == "meta"


@hostile.wrong(attribution=hostile.IMAGES, mask=hostile.MASKS)
def test_wrong_attributions_and_masks_are_named(wrong):
    mask = torch.zeros(3, 1, 6, 7)
    mask[:, :, 2:4, 2:4] = 1
    wrong.refused_by(pixel_ratio, attribution=torch.rand(3, 1, 6, 7), mask=mask)


def test_of_volumes_it_is_the_share_over_all_slices():
    g = torch.Generator().manual_seed(0)
    attribution, mask = torch.randn(3, 2, 4, 5, 6, generator=g), torch.rand(3, 1, 4, 5, 6, generator=g)
    void = (torch.rand(3, 1, 4, 5, 6, generator=g) < 0.2).float()
    positive = attribution.sum(1, keepdim=True).clamp(min=0) * (1 - void)
    inside = torch.where(void > 0, 0.0, mask)
    expected = (positive * inside).sum((1, 2, 3, 4)) / positive.sum((1, 2, 3, 4))
    torch.testing.assert_close(pixel_ratio(attribution, mask, void), expected)
    metric = PixelRatio()
    metric.update(attribution, mask)
    torch.testing.assert_close(metric.compute(), pixel_ratio(attribution, mask).mean())
    with pytest.raises(ValueError, match=r"void: expected shape \(3, 1, 4, 5, 6\) to go with the volume"):
        pixel_ratio(attribution, mask, void[:, :, 0])
