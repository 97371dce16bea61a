"""Both kernels against two implementations that share nothing with them: a k-d tree, and a loop with exact ties."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from tests.ops.conftest import make_inputs
from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.plain import composite_plain, nearest_cell


def blend_by_numpy(inputs, cell):
    """The formula of the design with NumPy's own indexing, in the compute dtype."""
    f, m, bank = (inputs[k].numpy() for k in ("foreground", "mask", "bank"))
    index, offset = inputs["index"].numpy(), inputs["offset"].numpy()
    batch, _, height, width = f.shape
    y, x = np.mgrid[:height, :width]
    out = np.empty_like(f)
    for b in range(batch):
        row = (y + offset[b, cell[b], 0]) % bank.shape[2]
        column = (x + offset[b, cell[b], 1]) % bank.shape[3]
        pixels = np.moveaxis(bank[index[b, cell[b]], :, row, column], -1, 0).astype(f.dtype)
        if bank.dtype == np.uint8:
            pixels = pixels / f.dtype.type(255)
        if inputs["mean"] is not None:
            pixels = (pixels - inputs["mean"].numpy()[:, None, None]) / inputs["std"].numpy()[:, None, None]
        out[b] = m[b] * f[b] + (1 - m[b]) * pixels
    return out


def cells_by_tree(inputs):
    """Owners by k-d tree, and where the second nearest is so close that the tree's rounding may decide."""
    height, width = inputs["foreground"].shape[2:]
    centres = np.stack(np.mgrid[:height, :width], -1) + 0.5
    owners, unsure = [], []
    for sites in inputs["sites"].numpy():
        distance, cell = cKDTree(sites).query(centres, k=2)
        owners.append(cell[..., 0])
        unsure.append(distance[..., 1] - distance[..., 0] < 1e-9)
    return np.stack(owners), np.stack(unsure)


def cells_by_fractions(sites, height, width):
    """Owners in exact arithmetic, pixel by pixel, ties to the lowest index."""
    cell = np.empty((height, width), dtype=np.int64)
    exact = [(Fraction(y), Fraction(x)) for y, x in sites.tolist()]
    half = Fraction(1, 2)
    for y in range(height):
        for x in range(width):
            distances = [(y + half - sy) ** 2 + (x + half - sx) ** 2 for sy, sx in exact]
            cell[y, x] = distances.index(min(distances))
    return cell


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cells", [2, 8, 64])
def test_k_d_tree_away_from_ties(dtype, cells):
    inputs = make_inputs(batch=3, size=(37, 53), cells=cells, dtype=dtype, seed=cells)
    cell, unsure = cells_by_tree(inputs)
    assert unsure.mean() < 1e-3
    expected = blend_by_numpy(inputs, cell)
    for out in (voronoi_composite(**inputs), composite_plain(**inputs)):
        np.testing.assert_array_equal(np.where(unsure[:, None], expected, out.numpy()), expected)


@pytest.mark.parametrize("grid", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("cells", [2, 6, 9])
def test_exact_ties_go_to_the_lowest_index(grid, cells):
    inputs = make_inputs(batch=2, size=(12, 15), cells=cells, grid=grid, seed=cells)
    cell = np.stack([cells_by_fractions(sites, 12, 15) for sites in inputs["sites"]])
    np.testing.assert_array_equal(nearest_cell(inputs["sites"], 12, 15).numpy(), cell)
    expected = blend_by_numpy(inputs, cell)
    for out in (voronoi_composite(**inputs), composite_plain(**inputs)):
        np.testing.assert_array_equal(out.numpy(), expected)


def test_uint8_normalised_on_the_fly_equals_normalising_before():
    inputs = make_inputs(normalise=True)
    mean, std = inputs["mean"], inputs["std"]
    bank = (inputs["bank"].float() / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    before = {**inputs, "bank": bank, "mean": None, "std": None}
    torch.testing.assert_close(voronoi_composite(**inputs), voronoi_composite(**before), rtol=0, atol=0)


def test_hard_masks_keep_and_replace():
    inputs = make_inputs(normalise=False)
    ones, zeros = torch.ones_like(inputs["mask"]), torch.zeros_like(inputs["mask"])
    assert torch.equal(voronoi_composite(**{**inputs, "mask": ones}), inputs["foreground"])
    background = voronoi_composite(**{**inputs, "mask": zeros})
    assert ((background >= 0) & (background <= 1)).all()
    half = voronoi_composite(**{**inputs, "mask": ones / 2})
    torch.testing.assert_close(half, (inputs["foreground"] + background) / 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_blended_in_float32(dtype):
    inputs = make_inputs(dtype=dtype)
    wide = {**inputs, "foreground": inputs["foreground"].float(), "mask": inputs["mask"].float()}
    out = voronoi_composite(**inputs)
    assert out.dtype == dtype
    assert torch.equal(out, voronoi_composite(**wide).to(dtype))
