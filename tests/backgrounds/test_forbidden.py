"""Lists of backgrounds that a foreground's class must not meet: obeyed by whoever draws, and never lost."""

from __future__ import annotations

import pytest
import torch

from torch_bgdebias.backgrounds import BackgroundBank, StreamedBackgroundBank
from torch_bgdebias.backgrounds.forbidden import ForbiddenDraws, ForbiddenPairs
from torch_bgdebias.backgrounds.pool import as_pool
from torch_bgdebias.backgrounds.sampling import ClassOrder
from torch_bgdebias.data import CorrelatedBackgrounds, make_variant
from torch_bgdebias.metrics import adversarial_background_accuracy
from torch_bgdebias.probe.passes.gathering import BackgroundPool
from torch_bgdebias.swap import BackgroundSwap, sample_swap_params

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


@pytest.fixture
def raw(generator):
    return torch.randint(0, 256, (4, 3, 6, 8), dtype=torch.uint8, generator=generator)


@pytest.fixture
def restricted(raw):
    """Class 0 must not stand on images 0, 1 and 2, class 1 not on image 3."""
    bank = BackgroundBank(raw, torch.tensor([0, 1, 1, 0]))
    bank.forbid(ForbiddenPairs(torch.tensor([0, 1]), torch.tensor([0, 0, 0, 1]), torch.arange(4)))
    return bank


def test_lists_by_foreground_class_are_obeyed_everywhere(raw, restricted, generator):
    assert as_pool(restricted).allowed(torch.tensor([0, 1, 7])).tolist() == [
        [False, False, False, True],
        [True, True, True, False],
        [True, True, True, True],
    ]
    image = torch.rand(60, 3, 6, 8, generator=generator)
    mask, label = torch.zeros(60, 1, 6, 8), torch.arange(60) % 2
    mask[:, :, 2:4, 2:5] = 1
    for name in ("mixed_rand", "mixed_same", "mixed_next"):
        variant = make_variant(image, mask, label, name, backgrounds=restricted, num_classes=2, generator=generator)
        for new, own, valid in zip(variant.image, label.tolist(), variant.valid.tolist(), strict=True):
            same = [bool(torch.equal(new[:, 0], picture[:, 0] / 255)) for picture in raw]
            assert not valid or (same.index(True) == 3) is (own == 0)
    assert not variant.valid[label == 0].any()  # class 0 may stand on image 3 alone, which is of its own class
    pool = BackgroundPool.of(restricted)
    ids = torch.arange(60).numpy().astype("uint64")
    rows = pool.choose("mixed_rand", ids, label.tolist(), num_classes=2, seed=0)
    assert set(rows[0::2].tolist()) == {3}
    assert set(rows[1::2].tolist()) == {0, 1, 2}
    data = CorrelatedBackgrounds(
        [(image[i], i % 2, mask[i]) for i in range(40)], restricted, correlation=0.0, mapping=[0, 1]
    )
    with pytest.raises(
        ValueError, match="bank: expected a background of category 1 for class 0, its filters leave none"
    ):
        [data[i] for i in range(40)]


def test_a_background_that_a_filter_forbids_fools_nobody(restricted):
    class OnBlack(torch.nn.Module):
        """Says class 1 on image 0, else class 0."""

        def forward(self, image):
            on_first = (image[:, :, 0, 0] - restricted.images[0, :, 0, 0] / 255).abs().amax(1) < 1e-6
            return torch.stack([~on_first, on_first], 1).float()

    image, mask = torch.rand(2, 3, 6, 8), torch.zeros(2, 1, 6, 8)
    mask[:, :, 3, 3] = 1
    label = torch.tensor([0, 7])
    survived = adversarial_background_accuracy(OnBlack(), image[:1], mask[:1], label[:1], restricted)
    assert survived.robust.tolist() == [True]
    assert survived.tried.tolist() == [4]
    restricted.forbidden_pairs = None
    assert adversarial_background_accuracy(
        OnBlack(), image[:1], mask[:1], label[:1], restricted
    ).fooled_by.tolist() == [0]


def test_a_subset_keeps_all_that_is_known(restricted, tmp_path):
    """It dropped lists and filters: a bank made careful by `filter` forgot it."""

    def darkness(image):
        return torch.stack([image.mean((1, 2, 3)) - 2, -image.mean((1, 2, 3))], 1)

    restricted.mean, restricted.std = torch.tensor(MEAN), torch.tensor(STD)
    restricted = restricted.filter(darkness, {5: ["light"]}, 1, class_names=["light", "dark"])
    assert len(restricted.filters) == 1
    for index in (torch.tensor([3, 1]), torch.tensor([False, True, False, True])):
        part = restricted.subset(index)
        assert part.filters == restricted.filters
        assert torch.equal(part.mean, restricted.mean)
        place = 0 if part.labels.tolist() == [0, 1] else 1  # where image 3 is
        draws = part.draw(200, foreground_labels=torch.zeros(200, dtype=torch.int64))
        assert set(draws.tolist()) == {place}
        assert set(part.draw(200, foreground_labels=torch.ones(200, dtype=torch.int64)).tolist()) == {1 - place}
        part.save(tmp_path / "part.pt")
        again = BackgroundBank.load(tmp_path / "part.pt")
        assert again.filters == part.filters
        assert torch.equal(again.mean, part.mean)
        assert all(torch.equal(a, b) for a, b in zip(again.forbidden_pairs, part.forbidden_pairs, strict=True))
    whole = restricted.subset(torch.arange(4))
    assert whole.images.data_ptr() != restricted.images.data_ptr()
    assert isinstance(whole, BackgroundBank)
    assert not isinstance(whole, StreamedBackgroundBank)


def oracle(table: dict[int, torch.Tensor], labels: torch.Tensor, foreground: int, exclude: int | None) -> set[int]:
    allowed = torch.ones(len(labels), dtype=torch.bool)
    if foreground in table:
        allowed &= ~table[foreground]
    if exclude is not None:
        allowed &= labels != exclude
    return set(allowed.nonzero().flatten().tolist())


@pytest.mark.parametrize("excluding", [False, True])
def test_draws_are_uniform_over_what_is_allowed(excluding, device):
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (23,), generator=g)
    table = {2: torch.rand(23, generator=g) < 0.5, 5: torch.zeros(23, dtype=torch.bool), 9: torch.ones(23) > 0}
    table[9][3] = False
    order = ClassOrder.of(labels.to(device))
    draws = ForbiddenDraws.of(ForbiddenPairs.of(table), order.order, 23, device)
    for foreground in (2, 5, 9, 0, -1, 11):
        for excluded in (0, 3, 8) if excluding else (None,):
            exclude = None if excluded is None else torch.full((4000,), excluded, device=device)
            asked = torch.full((4000,), foreground, device=device)
            drawn = draws.draw(asked, order, exclude, generator=torch.Generator(device).manual_seed(1)).cpu()
            expected = oracle(table, labels, foreground, excluded)
            assert set(drawn.flatten().tolist()) == (expected or {-1})
            if expected:
                counts = torch.bincount(drawn.flatten(), minlength=23)[sorted(expected)].double()
                share = 4000 / len(expected)
                assert ((counts - share).abs() < 5 * share**0.5).all()
            cells = draws.draw(asked[:50], order, None if exclude is None else exclude[:50], 4)
            if len(expected) >= 4:
                assert all(len(set(row)) == 4 for row in cells.tolist())


def test_pairs_select_and_join():
    g = torch.Generator().manual_seed(2)
    table = {4: torch.rand(30, generator=g) < 0.3, 1: torch.rand(30, generator=g) < 0.6}
    other = {1: torch.rand(30, generator=g) < 0.2, 6: torch.rand(30, generator=g) < 0.2}
    both = ForbiddenPairs.of(table).joined(ForbiddenPairs.of(other))
    expected = ForbiddenPairs.of({1: table[1] | other[1], 4: table[4], 6: other[6]})
    assert all(torch.equal(a, b) for a, b in zip(both, expected, strict=True))
    chosen = torch.tensor([7, 0, 29, 3, 3])
    taken = ForbiddenPairs.of({label: hit[chosen] for label, hit in table.items()})
    assert all(torch.equal(a, b) for a, b in zip(ForbiddenPairs.of(table).select(chosen), taken, strict=True))


def restricted_bank() -> BackgroundBank:
    bank = BackgroundBank(torch.zeros(40, 3, 8, 8), torch.arange(40) % 4)
    bank.forbid(ForbiddenPairs.of({0: torch.arange(40) < 30, 2: torch.arange(40) > 5}))
    return bank


def test_drawing_reads_nothing_back():
    """On the meta device there is nothing to read: every look at a value raises."""
    bank, label = restricted_bank().to("meta"), torch.zeros(6, dtype=torch.int64, device="meta")
    for pattern in ("paste", "voronoi"):
        for different_class in (True, False):
            params = sample_swap_params((6, 3, 8, 8), label, bank, pattern=pattern, different_class=different_class)
            assert params["index"].shape == (6, 1 if pattern == "paste" else 8)
    assert bank.sample(6, foreground_labels=label)[0].shape == (6, 3, 8, 8)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_no_host_synchronisation_on_a_gpu():
    bank, label = restricted_bank().to("cuda"), torch.tensor([0, 1, 2, 3]).cuda()
    swap = BackgroundSwap(bank, "voronoi")
    image, mask = torch.rand(4, 3, 8, 8).cuda(), torch.zeros(4, 1, 8, 8).cuda()
    swap(image, mask, label)
    torch.cuda.set_sync_debug_mode("error")
    try:
        swap(image, mask, label)
    finally:
        torch.cuda.set_sync_debug_mode("default")
