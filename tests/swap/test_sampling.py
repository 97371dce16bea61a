from __future__ import annotations

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank
from torch_bgdebias.backgrounds.sampling import ClassOrder, draw_outside, uniform_below
from torch_bgdebias.swap import sample_swap_params
from torch_bgdebias.swap.sampling import sample_offsets, sample_sites


def shares(values: torch.Tensor, count: int) -> torch.Tensor:
    return torch.bincount(values.flatten(), minlength=count).double() / values.numel()


def test_draws_are_uniform_over_exactly_the_admissible(device):
    generator = torch.Generator(device).manual_seed(0)
    start = torch.tensor([0, 2, 5, 3], device=device).repeat_interleave(40_000)
    count = torch.tensor([0, 3, 2, 0], device=device).repeat_interleave(40_000)
    for cells in (1, 3):
        rows = draw_outside(7, start, count, cells, generator=generator).cpu().view(4, 40_000, cells)
        admissible = [range(7), [0, 1, 5, 6], range(5), range(7)]
        for row, allowed in zip(rows, admissible, strict=True):
            for cell in range(cells):  # every cell by itself is uniform
                expected = torch.tensor(
                    [1 / len(allowed) if i in allowed else 0 for i in range(7)], dtype=torch.float64
                )
                drawn_shares = shares(row[:, cell], 7)
                assert torch.equal(drawn_shares > 0, expected > 0)
                assert (drawn_shares - expected).abs().max() < 5 * (0.25 / 40_000) ** 0.5


def test_rows_are_independent(generator):
    zero = torch.zeros(50_000, dtype=torch.int64)
    pairs = draw_outside(4, zero, zero, generator=generator)[:, 0].view(-1, 2)
    assert (shares(pairs[:, 0] * 4 + pairs[:, 1], 16) - 1 / 16).abs().max() < 0.01


@pytest.mark.parametrize(("total", "cells"), [(8, 8), (9, 8), (100, 8), (3, 8), (1, 4), (64, 64)])
def test_cells_of_a_row_differ_where_they_can(generator, total, cells):
    zero = torch.zeros(500, dtype=torch.int64)
    rows = draw_outside(total, zero, zero, cells, generator=generator)
    distinct = [len(set(row)) for row in rows.tolist()]
    assert set(distinct) == {min(total, cells)}


def test_nothing_admissible_is_minus_one(generator):
    full = torch.tensor([5, 0])
    assert draw_outside(5, torch.zeros(2, dtype=torch.int64), full, 2, generator=generator)[0].tolist() == [-1, -1]
    order = ClassOrder.of(torch.tensor([3, 3]))
    assert order.draw(torch.tensor([3, 4]), generator=generator)[0].item() == -1
    assert order.draw(torch.tensor([3, 4]), generator=generator)[1].item() in (0, 1)


def test_class_order_matches_a_slow_choice_of_partners(generator):
    label = torch.randint(-1, 5, (64,), generator=generator)
    index = torch.stack([ClassOrder.of(label).draw(label, generator=generator)[:, 0] for _ in range(600)])
    for i in range(64):
        valid = {j for j in range(64) if label[j] != label[i]}
        assert set(index[:, i].tolist()) <= valid
        assert len(set(index[:, i].tolist())) > 0.95 * len(valid)


def test_uniform_below_large_bounds(generator):
    bound = torch.full((1000,), 3 * 2**40)
    draws = uniform_below(bound, generator=generator).double() / bound
    assert 0.45 < draws.mean() < 0.55
    assert uniform_below(torch.zeros(3, dtype=torch.int64)).tolist() == [0, 0, 0]


def test_sites_and_offsets(generator):
    assert sample_sites(2, (10, 20)).tolist() == [[[5.0, 10.0]]] * 2
    sites = sample_sites(500, (10, 20), "voronoi", 4, generator=generator)
    assert sites.shape == (500, 4, 2)
    assert sites.amax((0, 1)).tolist() == pytest.approx([10, 20], rel=0.01)
    assert sites.mean((0, 1)).tolist() == pytest.approx([5, 10], rel=0.05)
    assert sample_offsets(9, (8, 8), (8, 4), generator=generator).abs().sum() == 0
    windows = sample_offsets(2000, (8, 8), (10, 11), generator=generator)
    assert windows.amin((0, 1)).tolist() == [0, 0]
    assert windows.amax((0, 1)).tolist() == [2, 3]
    anywhere = sample_offsets(2000, (8, 8), (10, 6), "voronoi", 3, generator=generator)
    assert anywhere.shape == (2000, 3, 2)
    assert anywhere.amax((0, 1)).tolist() == [9, 5]


@pytest.mark.parametrize("pattern", ["paste", "voronoi"])
def test_batch_partners_have_another_class_and_are_uniform(generator, pattern):
    label = torch.tensor([0, 0, 1, 2, 2, 2])
    draws = [
        sample_swap_params((6, 3, 8, 8), label, pattern=pattern, cells=2, different_class=True, generator=generator)
        for _ in range(3000)
    ]
    index = torch.stack([params["index"] for params in draws])
    assert index.shape == (3000, 6, 1 if pattern == "paste" else 2)
    assert (label[index] != label[None, :, None]).all()
    for i in range(6):
        valid = (label != label[i]).double()
        for cell in range(index.shape[2]):
            assert (shares(index[:, i, cell], 6) - valid / valid.sum()).abs().max() < 0.05
    assert all(params["apply"].all() for params in draws)


def test_background_label_is_the_one_of_the_cells(generator):
    label = torch.tensor([0, 0, 1, 1])
    other = {"different_class": True, "generator": generator}
    paste = sample_swap_params((4, 3, 8, 8), label, **other)
    assert paste["background_label"].tolist() == [1, 1, 0, 0]
    same = sample_swap_params((4, 3, 8, 8), label, pattern="voronoi", cells=2, **other)
    assert same["background_label"].tolist() == [1, 1, 0, 0]  # both cells come from the one other class
    mixed = sample_swap_params((4, 3, 8, 8), torch.arange(4), pattern="voronoi", cells=2, **other)
    assert mixed["background_label"].tolist() == [-1] * 4


def test_p_is_drawn_for_each_image(generator):
    label = torch.arange(20_000) % 7
    params = sample_swap_params((20_000, 1, 4, 4), label, p=0.3, generator=generator)
    assert params["apply"].double().mean() == pytest.approx(0.3, abs=0.02)
    unchanged = ~params["apply"]
    assert torch.equal(params["background_label"][unchanged], label[unchanged])
    assert torch.equal(params["index"][unchanged, 0], torch.arange(20_000)[unchanged])
    assert sample_swap_params((50, 1, 4, 4), label[:50], p=0.0)["apply"].sum() == 0
    assert sample_swap_params((50, 1, 4, 4), label[:50], p=1.0)["apply"].all()


def test_bank_labels_are_excluded_and_unknown_ones_exclude_nothing(generator):
    bank = BackgroundBank(torch.zeros(6, 1, 4, 4, dtype=torch.uint8), [0, 0, 1, 2, 2, 2])
    label = torch.tensor([0, 1, 2, 9]).repeat_interleave(3000)
    params = sample_swap_params((12_000, 1, 4, 4), label, bank, different_class=True, generator=generator)
    per_class = params["index"].view(4, 3000)
    for row, allowed in zip(per_class, ([2, 3, 4, 5], [0, 1, 3, 4, 5], [0, 1, 2], range(6)), strict=True):
        expected = torch.tensor([1 / len(allowed) if i in allowed else 0 for i in range(6)], dtype=torch.float64)
        assert (shares(row, 6) - expected).abs().max() < 0.05
    assert (params["background_label"] != label).all()


def test_a_bank_without_labels_excludes_nothing():
    bank = BackgroundBank(torch.zeros(3, 1, 4, 4, dtype=torch.uint8))
    params = sample_swap_params((5, 1, 4, 4), None, bank)
    assert params["apply"].all()
    assert params["background_label"].tolist() == [-1] * 5


def test_same_generator_same_draw():
    label = torch.arange(8) % 3
    first, second, other = (
        sample_swap_params((8, 3, 9, 7), label, pattern="voronoi", p=0.5, generator=torch.Generator().manual_seed(seed))
        for seed in (4, 4, 5)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["sites"], other["sites"])


def test_drawing_compiles_without_graph_breaks():
    def draw(label):
        return sample_swap_params((6, 3, 8, 8), label, pattern="voronoi", cells=3, different_class=True)["index"]

    compiled = torch.compile(draw, fullgraph=True, backend="aot_eager")
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    assert (label[compiled(label)] != label[:, None]).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"label: expected \(B,\) for different_class=True, got None"):
        sample_swap_params((2, 3, 4, 4), different_class=True)
    with pytest.raises(ValueError, match=r"label: expected shape \(2,\)"):
        sample_swap_params((2, 3, 4, 4), torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="p: expected a probability"):
        sample_swap_params((2, 3, 4, 4), torch.tensor([1, 2]), p=1.5)
    with pytest.raises(ValueError, match="pattern: expected one of 'paste', 'voronoi', got 'mix'"):
        sample_swap_params((2, 3, 4, 4), torch.tensor([1, 2]), pattern="mix")
    with pytest.raises(ValueError, match="cells: expected a whole number of at least 1, got 0"):
        sample_swap_params((2, 3, 4, 4), torch.tensor([1, 2]), cells=0)


def test_eight_cells_where_none_are_named():
    assert sample_swap_params((3, 3, 9, 9), pattern="voronoi")["index"].shape == (3, 8)
    assert sample_swap_params((3, 3, 9, 9))["index"].shape == (3, 1)
