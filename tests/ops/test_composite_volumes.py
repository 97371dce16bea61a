"""Voronoi cells in volumes against a loop in exact arithmetic, and volumes of one slice against images."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import pytest
import torch

from torch_bgdebias.ops import voronoi_composite
from torch_bgdebias.ops.plain import nearest_cell

SIZE, BANK = (4, 5, 6), (3, 4, 7)


def inputs(dtype: torch.dtype = torch.float64, bank_dtype: torch.dtype = torch.uint8) -> dict:
    g = torch.Generator().manual_seed(0)
    bank = torch.rand(5, 2, *BANK, generator=g, dtype=torch.float64)
    return {
        "foreground": torch.rand(2, 2, *SIZE, generator=g, dtype=torch.float64).to(dtype),
        "mask": torch.rand(2, 1, *SIZE, generator=g, dtype=torch.float64).to(dtype),
        "bank": (bank * 255).byte() if bank_dtype == torch.uint8 else bank.to(bank_dtype),
        # quarters, so that some pixels are as near to two sites
        "sites": torch.randint(0, 24, (2, 4, 3), generator=g).double() / 4,
        "index": torch.randint(5, (2, 4), generator=g),
        "offset": torch.randint(-9, 9, (2, 4, 3), generator=g),
    }


def owner(sites: list[list[float]], centre: tuple[Fraction, ...]) -> int:
    distances = [sum((Fraction(s) - c) ** 2 for s, c in zip(site, centre, strict=True)) for site in sites]
    return distances.index(min(distances))


def brute_force(given: dict, mean: list[float], std: list[float]) -> torch.Tensor:
    """The formula voxel by voxel."""
    out = torch.empty_like(given["foreground"])
    half, sites = Fraction(1, 2), given["sites"].tolist()
    for b, (z, y, x) in product(range(2), product(*map(range, SIZE))):
        k = owner(sites[b], (z + half, y + half, x + half))
        place = [(p + int(o)) % s for p, o, s in zip((z, y, x), given["offset"][b, k], BANK, strict=True)]
        for c in range(2):
            pixel = given["bank"][int(given["index"][b, k]), c][tuple(place)]
            value = float(pixel) / 255 if given["bank"].dtype == torch.uint8 else float(pixel)
            value = (value - mean[c]) / std[c]
            alpha = float(given["mask"][b, 0, z, y, x])
            out[b, c, z, y, x] = alpha * float(given["foreground"][b, c, z, y, x]) + (1 - alpha) * value
    return out


@pytest.mark.parametrize("bank_dtype", [torch.uint8, torch.float64])
def test_cells_and_offsets_are_those_of_a_loop_over_voxels(bank_dtype):
    given = inputs(bank_dtype=bank_dtype)
    mean, std = [0.25, 0.5], [0.5, 2.0]
    out = voronoi_composite(**given, mean=mean, std=std)
    torch.testing.assert_close(out, brute_force(given, mean, std), rtol=1e-12, atol=1e-12)
    half = Fraction(1, 2)
    cell, sites = nearest_cell(given["sites"], *SIZE), given["sites"].tolist()
    expected = [[owner(s, tuple(v + half for v in voxel)) for voxel in product(*map(range, SIZE))] for s in sites]
    assert cell.flatten(1).tolist() == expected
    assert len(set(cell[0].flatten().tolist())) > 2


def test_a_volume_of_one_slice_is_an_image():
    given = inputs(torch.float32)
    flat = {name: given[name][:, :, 1] for name in ("foreground", "mask", "bank")}
    flat |= {"sites": given["sites"][..., 1:], "index": given["index"], "offset": given["offset"][..., 1:]}
    thin = {name: flat[name].unsqueeze(2) for name in ("foreground", "mask", "bank")}
    zero = torch.zeros(2, 4, 1)
    thin |= {"sites": torch.cat([zero.double(), flat["sites"]], 2), "index": given["index"]}
    thin |= {"offset": torch.cat([zero.long(), flat["offset"]], 2)}
    assert torch.equal(voronoi_composite(**thin)[:, :, 0], voronoi_composite(**flat))


def test_gradients_reach_foreground_and_mask():
    given = inputs()
    small = {name: given[name][:1] for name in ("sites", "index", "offset")}
    front, mask = (given[name][:1, :, :2, :2, :2].clone().requires_grad_() for name in ("foreground", "mask"))

    def function(front: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return voronoi_composite(front, mask, given["bank"], **small)

    assert torch.autograd.gradcheck(function, (front, mask))
    assert torch.autograd.gradgradcheck(function, (front, mask))


def test_half_precision_is_blended_in_float32():
    exact, half = inputs(torch.float32), inputs(torch.bfloat16)
    exact |= {name: half[name].float() for name in ("foreground", "mask")}
    assert torch.equal(voronoi_composite(**half), voronoi_composite(**exact).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("mask", lambda x: x[:, :, 0], r"mask: expected shape \(2, 1, 4, 5, 6\) to go with the image"),
        ("bank", lambda x: x[:, :, 0], r"bank: expected shape \(N, C, Db, Hb, Wb\)"),
        ("sites", lambda x: x[..., :2], r"sites: expected shape \(2, K, 3\)"),
        ("offset", lambda x: x[..., :2], r"offset: expected shape \(2, 4, 3\)"),
        ("index", lambda x: x + 5, r"index: expected images of the bank in \[0, 4\]"),
        ("foreground", lambda x: x[0, 0], r"foreground: expected shape \(B, C, H, W\) or \(B, C, D, H, W\)"),
    ],
)
def test_bad_shapes_are_named(name, change, text):
    given = inputs()
    with pytest.raises(ValueError, match=text):
        voronoi_composite(**{**given, name: change(given[name])})
